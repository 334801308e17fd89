#!/usr/bin/env bash
# A plan's cells as a Slurm array: each task runs its share, and one more job writes the tables when all are over.
#
#   export PLAN=examples/plans/mvtec-ad.toml DATA=/data/mvtec OUT=runs/mvtec
#   sbatch --array=0-59 --cpus-per-task=8 examples/cluster/slurm.sh
#
# The array starts at 0; as many tasks as you like. DATA and OUT are folders that all nodes see. A task that was stopped
# goes on where it was: submit the same again. FASTFLOW names the program.
#SBATCH --job-name=fastflow
#SBATCH --output=fastflow-%A_%a.log
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
fastflow=${FASTFLOW:-fastflow}
: "${PLAN:?the plan file}" "${DATA:?the folder of the data set}" "${OUT:?the folder for results}"

if [ "${SLURM_ARRAY_TASK_ID:?submit this with sbatch --array=0-N}" -eq "$SLURM_ARRAY_TASK_MIN" ]; then
    # Submitted once, by the first task; runs when the whole array is over, whether or not all went well.
    sbatch --dependency="afterany:$SLURM_ARRAY_JOB_ID" --job-name=fastflow-tables --output="fastflow-%j-tables.log" \
        --wrap="exec '$fastflow' reproduce '$PLAN' --data '$DATA' --out '$OUT' --tables"
fi
# exec: Slurm's signal before the time is up reaches the program, which then saves its state.
exec "$fastflow" reproduce "$PLAN" --data "$DATA" --out "$OUT" \
    --cell "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --threads "${SLURM_CPUS_PER_TASK:-1}"
