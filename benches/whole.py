"""Times one image through ResNet18, FastFlow and the anomaly map in PyTorch, ONNX Runtime and OpenVINO
beside ours, f32, 2 threads.

    pip install torch timm onnx onnxruntime openvino
    cargo build --release --bin fastflow
    python benches/whole.py [--program target/release/fastflow] [--rounds 5] [--batch 1] [--backbone ID]
    python benches/whole.py --train   # one training step of the flow, batch 32: PyTorch and ours

The programs take turns in every round; a round gives each a median of 15, and the least of the rounds
is printed (other users of the machine only ever add time). All weights are random, which does not
change the speed.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path

import onnxruntime
import openvino
import timm
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
CLAMP = 1.9


class Step(nn.Module):
    """One coupling step: FrEIA's AllInOneBlock in plain operations."""

    def __init__(self, channels, hidden, kernel):
        super().__init__()
        self.active = channels // 2
        self.passive = channels - self.active
        self.conv1 = nn.Conv2d(self.passive, hidden, kernel, padding="same")
        self.conv2 = nn.Conv2d(hidden, 2 * self.active, kernel, padding="same")
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("permutation", torch.randperm(channels))

    def forward(self, x):
        x1, x2 = x[:, : self.passive], x[:, self.passive :]
        a = 0.1 * self.conv2(torch.relu(self.conv1(x1)))
        log_s = CLAMP * torch.tanh(a[:, : self.active])
        x2 = x2 * torch.exp(log_s) + a[:, self.active :]
        y = torch.cat([x1, x2], 1) * self.scale + self.offset
        return y[:, self.permutation], log_s.sum(1)


class Flow(nn.Module):
    """The chains of all maps."""

    def __init__(self, shapes, kernels):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(s, elementwise_affine=False) for s in shapes)
        chain = lambda c: nn.ModuleList(Step(c, c, kernels[i % len(kernels)]) for i in range(8))
        self.chains = nn.ModuleList(chain(shape[0]) for shape in shapes)

    def forward(self, maps):
        out = []
        for norm, chain, x in zip(self.norms, self.chains, maps):
            x, log_det = norm(x), 0.0
            for step in chain:
                x, ld = step(x)
                log_det = log_det + ld
            out.append((x, log_det))
        return out


class Whole(nn.Module):
    """Backbone, flow and map."""

    def __init__(self, backbone, size):
        super().__init__()
        self.size = size
        options = {"features_only": True, "out_indices": (1, 2, 3), "pretrained": False}
        self.backbone = timm.create_model(backbone, **options).eval()
        with torch.inference_mode():
            shapes = [list(m.shape[1:]) for m in self.backbone(torch.zeros(1, 3, size, size))]
        # The paper's setting: ResNet18 with 3x3 kernels, the wide network with 3x3 and 1x1 in turn.
        self.flow = Flow(shapes, (3, 1) if "wide" in backbone else (3,))

    def forward(self, image):
        total = 0.0
        for z, log_det in self.flow(self.backbone(image)):
            log_p = -0.5 * (z * z).mean(1, keepdim=True)
            total = total - nn.functional.interpolate(
                log_p.exp(), size=(self.size, self.size), mode="bilinear", align_corners=False
            )
        return total, log_det


def onnx_bytes(model, image):
    """The model as an ONNX file, constants folded."""
    file = io.BytesIO()
    torch.onnx.export(model, image, file, opset_version=17, dynamo=False)
    return file.getvalue()


def peers(args):
    """name -> a call that runs one batch."""
    torch.set_num_threads(THREADS)
    model = Whole(args.backbone, args.size).eval()
    image = torch.rand(args.batch, 3, args.size, args.size)
    with torch.inference_mode():
        onnx = onnx_bytes(model, image)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, image.numpy()
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(onnx), "CPU", config)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(array, shared_memory=True))
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def eager():
        with torch.inference_mode():
            model(image)

    return {
        "PyTorch": eager,
        "ONNX Runtime": lambda: session.run(None, {name: array}),
        f"OpenVINO ({precision})": request.infer,
    }


def torch_step(args):
    """A training step of PyTorch's flow, features given, and its peak memory in MiB."""
    torch.set_num_threads(THREADS)
    model = Whole(args.backbone, args.size)
    with torch.inference_mode():
        maps = model.backbone(torch.rand(1, 3, args.size, args.size))
    maps = [m.clone().repeat(args.batch, 1, 1, 1) for m in maps]
    adam = torch.optim.Adam(model.flow.parameters(), lr=1e-3, weight_decay=1e-5)

    def step():
        out = model.flow(maps)
        loss = sum((0.5 * (z * z).sum() - ld.sum()) for z, ld in out) / args.batch
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def milliseconds(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def ours(args, *extra):
    """Our program's figures."""
    return measured(args, *extra)[0]


def measured(args, *extra):
    """Our program's figures and its peak memory in MiB."""
    command = [args.program, "bench", "--backbone", args.backbone, "--json", *extra]
    command += ["--threads", str(THREADS), "--batch", str(args.batch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command} failed")
    return json.loads(output), usage.ru_maxrss / 1024


def infer(args):
    calls = peers(args)
    least = {name: float("inf") for name in [*calls, "ours"]}
    for _ in range(args.rounds):
        for name, call in calls.items():
            call()
            least[name] = min(least[name], statistics.median(milliseconds(call) for _ in range(15)))
        least["ours"] = min(least["ours"], ours(args)["whole"])
    for name, ms in least.items():
        print(f"{name:16} {ms:8.1f} ms   ours / this {least['ours'] / ms:.2f}")


def train(args):
    args.batch = 32 if args.batch == 1 else args.batch
    step = torch_step(args)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    step()
    theirs = min(milliseconds(step) for _ in range(args.rounds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"PyTorch {theirs:.0f} ms, peak {peak:.0f} MiB, {peak - base:.0f} above its start")
    args.batch = 1  # of the inference that the program times too; its training step takes 32
    for name, extra in (("ours", []), ("ours, activations rebuilt", ["--rebuild-activations"])):
        mine, memory = measured(args, "--train", "--repeat", "1", *extra)
        print(f"{name} {mine['train_step_ms']:.0f} ms ({mine['train_step_ms'] / theirs:.2f}x), whole process {memory:.0f} MiB "
              f"({memory / (peak - base):.2f}x what PyTorch's step adds)")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/fastflow"))
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", action="store_true")
    args = parser.parse_args()
    train(args) if args.train else infer(args)


if __name__ == "__main__":
    main()
