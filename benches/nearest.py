"""Nearest neighbours of 1024 positions of 384 channels: ours, faiss's IndexFlatL2 and torch.cdist + min, 2 threads, f32.

    pip install torch faiss-cpu numpy
    cargo bench --bench nearest --no-run          # prints the program's path
    python benches/nearest.py target/release/deps/nearest-HASH [FEATURES.bin QUERIES.bin]

The three take turns, each number is the least of all turns (other programs only ever add time). Features are files of
f32 `[N, 384]`; without them the numbers are uniformly random. Checks that the distances agree.
"""

import os
import re
import subprocess
import sys
import tempfile
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # a wrong core type slows numpy and faiss
    if name in os.environ:
        del os.environ[name]
        os.execv(sys.executable, [sys.executable, *sys.argv])
os.environ["OMP_NUM_THREADS"] = "2"

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

CHANNELS, QUERIES, TURNS, SECONDS = 384, 1024, 4, 1.0


def least(call, seconds):
    call()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        best = min(best, (time.perf_counter() - start) * 1e3)
    return best


def ours(program, rows, queries):
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("rows.bin", "queries.bin")]
        rows.tofile(files[0])
        queries.tofile(files[1])
        environment = {**os.environ, "RAYON_NUM_THREADS": "2"}
        command = [program, *files, str(CHANNELS), str(SECONDS)]
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(x) for x in re.search(r"all (\S+) ms, one (\S+) ms, bank (\S+) ms", text).groups()]


def compare(program, rows, queries, what):
    index = faiss.IndexFlatL2(CHANNELS)
    index.add(rows)
    memory, many = torch.from_numpy(rows), torch.from_numpy(queries)
    found = {}

    def note(name, value):
        found[name] = min(found.get(name, float("inf")), value)

    for _ in range(TURNS):
        for name, value in zip(("ours", "ours, one query", "ours, bank"), ours(program, rows, queries)):
            note(name, value)
        note("faiss", least(lambda: index.search(queries, 1), SECONDS))
        note("faiss, one query", least(lambda: index.search(queries[:1], 1), SECONDS / 4))
        note("torch", least(lambda: torch.cdist(many, memory).min(1), SECONDS))
    ratios = f"{found['ours'] / found['faiss']:.2f} x faiss, {found['ours'] / found['torch']:.2f} x torch"
    print(what, len(rows), {name: round(value, 2) for name, value in found.items()}, ratios, flush=True)


def main():
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    faiss.omp_set_num_threads(2)
    program, *files = sys.argv[1:]
    random = np.random.default_rng(0)
    for count in (1_000, 8_000, 100_000):
        if files:
            rows, queries = (np.fromfile(file, np.float32).reshape(-1, CHANNELS) for file in files)
            rows = rows[random.permutation(len(rows))[:count]]
            queries = np.ascontiguousarray(queries[random.permutation(len(queries))[:QUERIES]])
        else:
            rows, queries = (random.random((n, CHANNELS), np.float32) for n in (count, QUERIES))
        compare(program, rows, queries, "real" if files else "random")


main()
