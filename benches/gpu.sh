#!/usr/bin/env bash
# The whole GPU run, under 10 minutes on a machine with one NVIDIA GPU and what was built before it came:
#   cargo build --release --features cudnn --bin fastflow
#   cargo test --features cudnn --test cuda --no-run
# usage: [TEST=target/debug/deps/cuda-...] [PROGRAM=...] [PYTHON=python3] [OUT=folder] benches/gpu.sh
# Parts: tests (errors against f64 and the CPU), speed in f32, speed in TF32, sanitizers. Each goes on when another
# fails. torch.compile's work is kept in target/inductor: where a speed part ran out of time, run the script again.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${PROGRAM:=target/release/fastflow}" "${PYTHON:=python3}" "${OUT:=target/gpu}"
# Without it the tests pass where no GPU opens.
export FASTFLOW_REQUIRE_GPU=1
mkdir -p "$OUT"
failed=0

# Only a build with CUDA names this kernel.
has_cuda() { grep -q coupling_forward_f32 "$1" 2>/dev/null; }

if [ -z "${TEST:-}" ]; then
    for file in $(ls -t target/*/deps/cuda-* 2>/dev/null | grep -v '\.d$'); do
        has_cuda "$file" && TEST=$file && break
    done
fi
for file in "${TEST:-no test of target/*/deps/cuda-*}" "$PROGRAM"; do
    has_cuda "$file" || { echo "$file was not built with CUDA: see the head of $0" >&2 && exit 1; }
done

part() { # name, seconds, command...
    local name=$1 limit=$2
    shift 2
    printf '\n== %s\n' "$name"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.txt"
    local status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || { echo "$name: exit code $status" && failed=1; }
}

sanitize() { # tool, seconds: the small shapes only, for everything is some 50 times slower here
    part "sanitizer-$1" "$2" compute-sanitizer --tool "$1" --error-exitcode 9 \
        "$TEST" device::flows::whole_flows device::flows::training_steps device::maps_and_scores --test-threads 1
}

part gpu 10 nvidia-smi
part tests 100 "$TEST" device:: --nocapture --test-threads 1
part speed-f32 190 "$PYTHON" benches/gpu.py --program "$PROGRAM" --rounds 2 --json "$OUT/f32.json"
part speed-tf32 90 "$PYTHON" benches/gpu.py --program "$PROGRAM" --rounds 1 --tf32 --json "$OUT/tf32.json"
if command -v compute-sanitizer >/dev/null; then
    sanitize memcheck 70
    sanitize racecheck 70
    # What time the parts before left over.
    for tool in synccheck initcheck; do
        left=$((590 - SECONDS))
        if [ "$left" -ge 20 ]; then
            sanitize "$tool" "$left"
        else
            echo "not run for want of time: sanitizer-$tool"
        fi
    done
else
    echo "failed: compute-sanitizer is not installed" && failed=1
fi
exit $failed
