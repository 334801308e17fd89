"""Times the flow's step and whole inference on one NVIDIA GPU: PyTorch eager, torch.compile and ours, f32, in turn.

    pip install torch timm
    cargo build --release --features cudnn --bin fastflow
    python benches/gpu.py [--program target/release/fastflow] [--rounds 3] [--tf32] [--json FILE]

All weights are random, which does not change the speed. `step` is the flow's forward and backward at batch 32 with
features at hand, without and with Adam's step. `additional` is what flow and map add to the backbone, an image at
batch 1. The least of the rounds is printed, each a median. torch.compile's work stays in target/inductor, so that a
second run of this script starts at once.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Read when torch is imported.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "target/inductor"))

import timm
import torch
from torch import nn

CLAMP = 2.0
# Backbone, input side, where features are taken, kernels, steps, hidden channels of C (the paper's Table 6).
BACKBONES = [
    ("resnet18.tv_in1k", 256, (1, 2, 3), (3,), 8, 2),
    ("wide_resnet50_2.racm_in1k", 256, (1, 2, 3), (3, 1), 8, 2),
    ("deit_base_distilled_patch16_384.fb_in1k", 384, 7, (3, 1), 20, 6),
    ("cait_m48_448.fb_dist_in1k", 448, 40, (3, 1), 20, 6),
]


class Step(nn.Module):
    """One coupling step: FrEIA's AllInOneBlock in plain operations."""

    def __init__(self, channels, hidden, kernel):
        super().__init__()
        self.active = channels // 2
        self.passive = channels - self.active
        self.conv1 = nn.Conv2d(self.passive, hidden, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(hidden, 2 * self.active, kernel, padding=kernel // 2)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 9.99))
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("permutation", torch.randperm(channels))

    def forward(self, x):
        x1, x2 = x[:, : self.passive], x[:, self.passive :]
        a = 0.1 * self.conv2(torch.relu(self.conv1(x1)))
        log_s = CLAMP * torch.tanh(a[:, : self.active])
        x2 = x2 * torch.exp(log_s) + a[:, self.active :]
        scale = 0.1 * nn.functional.softplus(self.scale, beta=0.5)
        y = torch.cat([x1, x2], 1) * scale + self.offset
        return y[:, self.permutation], log_s.sum(1) + scale.log().sum()


class Flow(nn.Module):
    """The chains of all maps, each behind a LayerNorm."""

    def __init__(self, shapes, kernels, steps, divisor):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(s, elementwise_affine=False) for s in shapes)
        step = lambda c, i: Step(c, c // divisor, kernels[i % len(kernels)])
        self.chains = nn.ModuleList(nn.ModuleList(step(s[0], i) for i in range(steps)) for s in shapes)

    def forward(self, maps):
        out = []
        for norm, chain, x in zip(self.norms, self.chains, maps):
            x, log_det = norm(x), 0.0
            for step in chain:
                x, ld = step(x)
                log_det = log_det + ld
            out.append((x, log_det))
        return out

    def loss(self, maps):
        return sum(0.5 * (z * z).sum() - ld.sum() for z, ld in self(maps)) / maps[0].shape[0]


class Backbone(nn.Module):
    """Feature maps of a timm network; of a transformer one block's tokens as a map."""

    def __init__(self, name, side, tap):
        super().__init__()
        self.tap, self.side = tap, side
        if isinstance(tap, tuple):
            self.net = timm.create_model(name, features_only=True, out_indices=tap, pretrained=False)
        else:
            self.net = timm.create_model(name, pretrained=False)
            self.net.blocks = self.net.blocks[: tap + 1]

    def forward(self, image):
        if isinstance(self.tap, tuple):
            return self.net(image)
        return self.net.forward_intermediates(image, indices=[self.tap], intermediates_only=True, norm=False)


class Whole(nn.Module):
    """Backbone, flow and map."""

    def __init__(self, backbone, flow, side):
        super().__init__()
        self.backbone, self.flow, self.side = backbone, flow, side

    def forward(self, image):
        total = 0.0
        for z, _ in self.flow(self.backbone(image)):
            probability = (-0.5 * z * z).exp().mean(1, keepdim=True)
            size = (self.side, self.side)
            total = total - nn.functional.interpolate(probability, size=size, mode="bilinear", align_corners=False)
        return total


def milliseconds(call, repeat):
    """The median of calls, each until the GPU is done."""
    times = []
    for _ in range(repeat + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


def inferring(module, image):
    def call():
        with torch.inference_mode():
            module(image)

    return call


def training(loss, maps, adam=None):
    def call():
        # Gradients of the step before must not be added to.
        loss.zero_grad(set_to_none=True)
        loss(maps).backward()
        if adam is not None:
            adam.step()

    return call


class Loss(nn.Module):
    """The flow's loss as a module."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, maps):
        return self.flow.loss(maps)


def peers(name, side, tap, kernels, steps, divisor):
    """what -> (how, call), PyTorch's."""
    torch._dynamo.reset()
    backbone = Backbone(name, side, tap).cuda().eval()
    images = {batch: torch.rand(batch, 3, side, side, device="cuda") for batch in (1, 32)}
    with torch.inference_mode():
        maps = backbone(images[1])
    maps = [m.clone().repeat(32, 1, 1, 1) for m in maps]
    flow = Flow([list(m.shape[1:]) for m in maps], kernels, steps, divisor).cuda()
    adam = torch.optim.Adam(flow.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
    loss, whole = Loss(flow), Whole(backbone, flow, side)
    calls = {}
    # Compiled anew for every batch size, each for this size alone: that is where it is fastest.
    for how, compiled in (("eager", lambda module: module), ("compile", lambda m: torch.compile(m, dynamic=False))):
        step = compiled(loss)
        calls["step", how] = training(step, maps)
        calls["step with Adam", how] = training(step, maps, adam)
        for batch, image in images.items():
            calls[f"backbone {batch}", how] = inferring(compiled(backbone), image)
            calls[f"whole {batch}", how] = inferring(compiled(whole), image)
    return calls


def ours(args, name, batch, train):
    """Our program's figures."""
    # What PyTorch keeps for itself is not ours to use.
    torch.cuda.empty_cache()
    command = [args.program, "bench", "--backbone", name, "--json", "--device", "cuda:0", "--batch", str(batch)]
    command += ["--train"] * train + ["--tf32"] * args.tf32
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measure(args, backbone):
    """(what, how) -> ms, the least of the rounds."""
    least = {}

    def keep(key, ms):
        least[key] = min(ms, least.get(key, float("inf")))

    calls = peers(*backbone)
    for _ in range(args.rounds):
        for key, call in calls.items():
            keep(key, milliseconds(call, 15))
        one, many = ours(args, backbone[0], 1, False), ours(args, backbone[0], 32, True)
        keep(("step", "ours"), many["train_gradients_ms"])
        keep(("step with Adam", "ours"), many["train_step_ms"])
        for batch, figures in ((1, one), (32, many)):
            keep((f"backbone {batch}", "ours"), figures["backbone"])
            keep((f"whole {batch}", "ours"), figures["whole"])
    return least


def show(name, least):
    print(f"\n{name}\n{'':18}{'eager':>10}{'compile':>10}{'ours':>10}")
    rows = {what: None for what, _ in least}
    for what in rows:
        cells = (least.get((what, how)) for how in ("eager", "compile", "ours"))
        print(f"{what + ', ms':18}" + "".join(f"{'' if ms is None else f'{ms:.2f}':>10}" for ms in cells))
    for how in ("eager", "compile", "ours"):
        fps = [f"{batch} {1e3 * batch / least[f'whole {batch}', how]:.0f}" for batch in (1, 32)]
        added = least["whole 1", how] - least["backbone 1", how]
        print(f"{how:8} FPS at batch {', '.join(fps)}; additional {added:.2f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/fastflow"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tf32", action="store_true", help="for all of them")
    parser.add_argument("--backbone", help="only this one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "TF32" if args.tf32 else "f32")
    found = {}
    for backbone in BACKBONES:
        if args.backbone in (None, backbone[0]):
            least = measure(args, backbone)
            show(backbone[0], least)
            found[backbone[0]] = {f"{what}, {how}": ms for (what, how), ms in least.items()}
            torch.cuda.empty_cache()
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
