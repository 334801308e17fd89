"""Does the fast engine change the verdicts? Scores a test set by the detector's own weights in plain PyTorch and by the
program, and compares scores and AUROC image by image.

    pip install torch timm safetensors scikit-learn pillow
    python benches/plain_path.py DETECTOR --data DIR --weights FILE [--program target/release/fastflow]

For detectors with a timm ResNet, LayerNorm and the exp, nll or prob map.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parent.parent


class Plain:
    """The detector in plain operations."""

    def __init__(self, folder, weights):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "model.safetensors")
        arch = self.config["backbone"]["id"].split(".")[0]
        self.backbone = timm.create_model(arch, features_only=True, out_indices=(1, 2, 3)).eval()
        self.backbone.load_state_dict(load_file(weights), strict=False)

    def input(self, path):
        p = self.config["preprocessing"]
        image = Image.open(path).convert("RGB").resize((p["width"], p["height"]), Image.BILINEAR)
        x = torch.from_numpy(np.asarray(image, np.float32) / 255)
        x = (x - torch.tensor(p["mean"])) / torch.tensor(p["std"])
        return x.permute(2, 0, 1)[None]

    def chain(self, scale, x):
        flow, tensor = self.config["flow"], self.tensors.get
        norm = f"scales.{scale}.norm."
        if flow["norm"].startswith("layer_norm"):
            x = F.layer_norm(x, x.shape[1:], tensor(norm + "weight"), tensor(norm + "bias"))
        for step in range(flow["steps"]):
            at = lambda name: tensor(f"scales.{scale}.steps.{step}.{name}")
            active = x.shape[1] // 2
            x1, x2 = x[:, :-active], x[:, -active:]
            hidden = F.relu(F.conv2d(x1, at("conv1.weight"), at("conv1.bias"), padding="same"))
            a = 0.1 * F.conv2d(hidden, at("conv2.weight"), at("conv2.bias"), padding="same")
            x2 = x2 * torch.exp(flow["clamp"] * torch.tanh(a[:, :active])) + a[:, active:]
            scale_factor = 0.1 * F.softplus(at("global_scale"), beta=0.5)
            shape = (1, -1, 1, 1)
            y = torch.cat([x1, x2], 1) * scale_factor.view(shape) + at("global_offset").view(shape)
            x = y[:, at("permutation").long()]
        return x

    def score(self, path):
        scoring, size = self.config["scoring"], self.config["preprocessing"]
        kinds = {
            "nll": lambda z: 0.5 * (z * z).mean(1, keepdim=True),
            "exp": lambda z: -torch.exp(-0.5 * (z * z).mean(1, keepdim=True)),
            "prob": lambda z: -torch.exp(-0.5 * z * z).mean(1, keepdim=True),
        }
        maps = [kinds[scoring["image_map"]](self.chain(i, x)) for i, x in enumerate(self.backbone(self.input(path)))]
        maps = [F.interpolate(m, (size["height"], size["width"]), mode="bilinear") for m in maps]
        weights = scoring.get("image_weights") or [1.0] * len(maps)
        values = sum(w * m for w, m in zip(weights, maps)).flatten() / sum(weights)
        k = scoring["image_score"]["top_k"] if isinstance(scoring["image_score"], dict) else 1
        return values.topk(k).values.mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--program", default=ROOT / "target/release/fastflow")
    args = parser.parse_args()
    command = [args.program, "eval", args.detector, "--data", args.data, "--backbone-weights", args.weights]
    ours = json.loads(subprocess.run([*command, "--json", "--scores"], check=True, capture_output=True).stdout)
    plain = Plain(args.detector, args.weights)
    with torch.inference_mode():
        expected = np.array([plain.score(args.data / image["image"]) for image in ours["scores"]])
    found = np.array([image["score"] for image in ours["scores"]])
    labels = [image.get("defect") is not None for image in ours["scores"]]
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{len(found)} images; AUROC plain {roc_auc_score(labels, expected):.6f}, ours {ours['image_auroc']:.6f}; "
          f"largest gap of a score {gap:.1e} of the largest")  # fmt: skip


if __name__ == "__main__":
    main()
