"""The peers of nearest.rs on two threads: faiss's IndexFlatL2, torch.cdist, and PatchCore's greedy selection as
anomalib's KCenterGreedy does it (each round the distances of all vectors to the newest centre, their minimum, the
largest of them).

    pip install torch faiss-cpu numpy
    OMP_NUM_THREADS=2 python benches/nearest.py [VECTORS.f32 [ROUNDS]]

VECTORS.f32: f32, row by row, 128 values each; ROUNDS are timed and scaled to 8000.
"""
import sys
import time

import faiss
import numpy
import torch

torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
rng = numpy.random.default_rng(0)


def best(work, rounds=7):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main():
    queries = rng.random((1024, 384), dtype=numpy.float32)
    for rows in [1000, 8000, 10000, 100000]:
        memory = rng.random((rows, 384), dtype=numpy.float32)
        index = faiss.IndexFlatL2(384)
        index.add(memory)
        print(f"faiss 1024 x {rows} x 384: {best(lambda: index.search(queries, 1)):.1f} ms")
        q, m = torch.from_numpy(queries), torch.from_numpy(memory)
        print(f"torch.cdist + min 1024 x {rows} x 384: {best(lambda: torch.cdist(q, m).min(1)):.1f} ms")
    file = sys.argv[1] if len(sys.argv) > 1 else None
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    if file:
        vectors = torch.from_numpy(numpy.fromfile(file, dtype=numpy.float32).reshape(-1, 128))
    else:
        vectors = torch.from_numpy(rng.random((65536, 128), dtype=numpy.float32))
    nearest, chosen = None, 0
    start = time.perf_counter()
    for _ in range(rounds):
        gaps = torch.linalg.vector_norm(vectors - vectors[chosen : chosen + 1], ord=2, dim=1)
        nearest = gaps if nearest is None else torch.minimum(nearest, gaps)
        chosen = int(torch.argmax(nearest))
    seconds = time.perf_counter() - start
    print(f"greedy rounds of {len(vectors)} x 128: {1e3 * seconds / rounds:.2f} ms each, 8000 of them {8000 * seconds / rounds:.0f} s")


main()
