#!/usr/bin/env bash
# The whole GPU run, under 10 minutes on a machine with one NVIDIA GPU and what was built before it came:
#   cargo build --release --features cudnn --bin fastflow
#   cargo test --features cudnn --test cuda --no-run --message-format=json | ... (the test's path, as TEST)
# usage: TEST=target/debug/deps/cuda-... PROGRAM=target/release/fastflow PYTHON=python3 OUT=folder benches/gpu.sh
# Parts: tests (errors against the CPU), sanitizer, speed in f32, speed in TF32. Each goes on when another fails.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${PROGRAM:=target/release/fastflow}" "${PYTHON:=python3}" "${OUT:=target/gpu}"
: "${TEST:=$(ls -t target/*/deps/cuda-* 2>/dev/null | grep -v '\.d$' | head -n 1)}"
mkdir -p "$OUT"
failed=0

part() { # name, seconds, command...
    local name=$1 limit=$2
    shift 2
    printf '\n== %s\n' "$name"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.txt"
    local status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || { echo "$name: exit code $status" && failed=1; }
}

part gpu 20 nvidia-smi
part tests 120 "$TEST" device:: --nocapture --test-threads 1
# The small shapes only: everything is some 50 times slower here.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        part "sanitizer-$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$TEST" device::whole_flows device::training_steps device::maps_and_scores --test-threads 1
    done
else
    echo "skipped: compute-sanitizer is not installed"
fi
part speed-f32 200 "$PYTHON" benches/gpu.py --program "$PROGRAM" --rounds 2 --json "$OUT/f32.json"
part speed-tf32 120 "$PYTHON" benches/gpu.py --program "$PROGRAM" --rounds 1 --tf32 --json "$OUT/tf32.json"
exit $failed
