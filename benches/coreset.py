"""Greedy k-centre selection: ours beside the loop of anomalib's KCenterGreedy, 2 threads, f32.

    pip install torch numpy
    cargo bench --bench coreset --no-run          # prints the program's path
    python benches/coreset.py target/release/deps/coreset-HASH [ROWS.bin DIMENSIONS] [--count 8000] [--peer-rounds 100]

ROWS.bin holds f32 row by row; without it 327,680 x 128 normal numbers, the worst case for our bounds. The peer is the
plain loop that anomalib 2 runs: each round the distances of all rows to the newest centre, the minimum, the argmax. Its
rounds all cost the same, so a few are timed and multiplied. Checks that both choose the same rows (but for ties
within rounding, the first 100).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np  # noqa: E402
import torch  # noqa: E402


def ours(program, file, dims, count):
    environment = {**os.environ, "RAYON_NUM_THREADS": "2"}
    command = [program, file, str(dims), str(count)]
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, total = re.search(r": (\S+) s, sum of rows (\d+)", text).groups()
    return float(seconds), int(total)


def peer(rows, rounds):
    """Seconds of a round, the least of all, and the rows chosen."""
    least, chosen, best = None, [0], float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        centre = rows[chosen[-1]].unsqueeze(0)
        distance = torch.linalg.norm(rows - centre, ord=2, dim=1, keepdim=True)
        least = distance if least is None else torch.minimum(least, distance)
        chosen.append(int(torch.argmax(least).item()))
        best = min(best, time.perf_counter() - start)
    return best, chosen


def main():
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("rows", nargs="?")
    parser.add_argument("dimensions", nargs="?", type=int, default=128)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--peer-rounds", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.rows
        if file is None:
            file = os.path.join(folder, "rows.bin")
            np.random.default_rng(0).standard_normal((327_680, 128), np.float32).tofile(file)
        rows = torch.from_numpy(np.fromfile(file, np.float32).reshape(-1, arguments.dimensions))
        half = arguments.peer_rounds // 2
        before, chosen = peer(rows, half)
        seconds, _ = ours(arguments.program, file, arguments.dimensions, arguments.count)
        after, _ = peer(rows, half)
        _, total = ours(arguments.program, file, arguments.dimensions, len(chosen))
        same = "the same rows" if total == sum(chosen) else "OTHER ROWS"
    whole = min(before, after) * arguments.count
    print(
        f"{arguments.count} of {len(rows)} x {arguments.dimensions}: ours {seconds:.1f} s, anomalib's loop {whole:.1f} s "
        f"({min(before, after) * 1e3:.1f} ms a round), {seconds / whole:.3f} x; {same} in the first {len(chosen)}"
    )


main()
