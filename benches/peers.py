"""Times single convolutions in PyTorch, ONNX Runtime and OpenVINO beside ours, 2 threads, f32.

    pip install torch onnx onnxruntime openvino
    python benches/peers.py [--skip-ours]

Ours come from `cargo bench --bench conv`, run in the same minute; each number is the least of many
(other programs only ever add time). `infer` is one image with bias and ReLU, `train` forward and
backward (gradients of input, weight and bias) of 8 images.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
# Input channels, output channels, map side, kernel, stride, padding; conv.rs has the same list.
LAYERS = [
    (64, 64, 64, 3, 1, 1),
    (128, 128, 32, 3, 1, 1),
    (256, 256, 16, 3, 1, 1),
    (32, 64, 64, 3, 1, 1),
    (64, 128, 32, 3, 1, 1),
    (128, 256, 16, 3, 1, 1),
    (64, 64, 64, 1, 1, 0),
    (64, 128, 64, 3, 2, 1),
    (3, 64, 256, 7, 2, 3),
]


def least(call, seconds=1.0):
    """The shortest time of a call in ms, after two to warm up."""
    call(), call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def onnx_model(w, b, x_shape, stride, padding):
    """Conv + Relu as an ONNX file's bytes."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[stride] * 2, pads=[padding] * 4),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def peers_infer(layer):
    """ms of one image in each peer."""
    c, o, side, k, stride, padding = layer
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, c, side, side)).astype(np.float32)
    w = rng.uniform(-1, 1, (o, c, k, k)).astype(np.float32)
    b = rng.uniform(-1, 1, o).astype(np.float32)
    tx, tw, tb = map(torch.from_numpy, (x, w, b))
    with torch.inference_mode():
        found = {"torch": least(lambda: torch.conv2d(tx, tw, tb, stride, padding).relu_())}
    model = onnx_model(w, b, list(x.shape), stride, padding)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found["ort"] = least(lambda: session.run(None, {"x": x}))
    core = openvino.Core()
    for name, extra in [("openvino", {}), ("openvino f32", {"INFERENCE_PRECISION_HINT": "f32"})]:
        config = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", **extra}
        compiled = core.compile_model(core.read_model(model), "CPU", config)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        found[name] = least(request.infer)
    return found


def torch_train(layer):
    """ms of forward and backward of 8 images."""
    c, o, side, k, stride, padding = layer
    x = torch.rand(8, c, side, side, requires_grad=True)
    conv = torch.nn.Conv2d(c, o, k, stride, padding)
    dy = torch.rand_like(conv(x))

    def step():
        x.grad = conv.weight.grad = conv.bias.grad = None
        conv(x).relu().backward(dy)

    return {"torch": least(step)}


def ours(group, layer):
    """Criterion's fastest sample, ms an iteration."""
    c, o, side, k, stride, _ = layer
    folder = ROOT / f"target/criterion/{group}/{c}-{o}-{side}-k{k}-s{stride}/new"
    sample = json.loads((folder / "sample.json").read_text())
    return min(t / n for t, n in zip(sample["times"], sample["iters"])) / 1e6


def main():
    torch.set_num_threads(THREADS)
    if "--skip-ours" not in sys.argv:
        command = ["cargo", "bench", "--bench", "conv", "--", "--noplot"]
        command += ["--warm-up-time", "0.5", "--measurement-time", "1.5"]
        subprocess.run(command, cwd=ROOT, check=True)
    for group, peers in [("infer", peers_infer), ("train", torch_train)]:
        for layer in LAYERS:
            if group == "train" and layer[4] > 1:
                continue
            mine = ours(group, layer)
            ratios = [f"{name} {ms:.2f} ({mine / ms:.2f}x)" for name, ms in peers(layer).items()]
            print(f"{group} {layer}: ours {mine:.2f} ms; " + ", ".join(ratios), flush=True)


if __name__ == "__main__":
    main()
