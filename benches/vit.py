"""Times the transformers' features in PyTorch beside ours: one image, 2 threads, f32, alternating runs.

    pip install torch timm
    cargo bench --bench vit --no-run && python benches/vit.py [--rounds 3] [--runs 10] [ID ...]
    cargo build --release && python benches/vit.py --program target/release/fastflow    # by `fastflow bench` instead of criterion

Both run the blocks up to the tap and the final norm, on random weights. Each round prints its medians; the last line has the least
of each over the rounds (other programs only ever add time).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

import timm
import torch

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2


def tap(arch, depth):
    """The block, from 0, that the registry taps."""
    return depth * 5 // 6 if arch.startswith("cait") else 7


def pytorch(arch):
    """A call that gives the map, or what comes before it."""
    size = 448 if "dinov2" in arch else None
    model = timm.create_model(arch, **({"img_size": size} if size else {})).eval()
    model.blocks = model.blocks[: tap(arch, len(model.blocks)) + 1]
    size = size or model.patch_embed.img_size[0]
    image = torch.rand(1, 3, size, size)
    last = len(model.blocks) - 1

    def features():
        with torch.inference_mode():
            return model.forward_intermediates(image, indices=[last], norm=True, intermediates_only=True)

    return features


def median_ms(call, runs):
    call(), call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def ours_ms(arch, args):
    if args.program:
        command = [args.program, "bench", "--backbone", arch, "--threads", str(THREADS), "--repeat", str(args.runs), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["backbone"]
    environment = os.environ | {"FASTFLOW_BENCH_BACKBONES": arch, "RAYON_NUM_THREADS": str(THREADS)}
    command = ["cargo", "bench", "--bench", "vit", "--", "--noplot", "--warm-up-time", "1"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    folder = re.sub(r"[^A-Za-z0-9_.-]", "_", arch)
    estimates = json.loads((ROOT / f"target/criterion/{folder}/new/estimates.json").read_text())
    return estimates["median"]["point_estimate"] / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ids", nargs="*", default=["deit_base_distilled_patch16_384", "cait_m48_448"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--program")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {THREADS} threads, one image, ms")
    for arch in args.ids:
        theirs, ours = [], []
        call = pytorch(arch)
        for _ in range(args.rounds):
            theirs.append(median_ms(call, args.runs))
            ours.append(ours_ms(arch, args))
            print(f"  PyTorch {theirs[-1]:.0f}, ours {ours[-1]:.0f}, ratio {ours[-1] / theirs[-1]:.2f}", flush=True)
        print(f"{arch}: PyTorch {min(theirs):.0f}, ours {min(ours):.0f}, ratio {min(ours) / min(theirs):.2f}", flush=True)


if __name__ == "__main__":
    main()
