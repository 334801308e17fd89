"""The reference for docs/backbones.md: FastFlow over DeiT-tiny on screw in PyTorch (timm and FrEIA).

    pip install torch timm FrEIA==0.2 scikit-learn pillow
    python benches/screw_vit.py [--shared ../shared] [--epochs 16] [--seeds 0 1 2]

The `paper` preset's network: block 7 and the final norm, LayerNorm over (C, H, W) without affine, 20 steps 3-1,
hidden width C / 6, Adam with L2, batch 32, no augmentation; `prob` map, image score = its maximum. Ours:

    fastflow train --data ../shared/data/screw --backbone deit_tiny_patch16_224 --backbone-weights FILE \\
        --epochs 16 --seed S --out DIR && fastflow eval DIR --data ../shared/data/screw --json
"""

import argparse
from pathlib import Path

import FrEIA.framework as ff
import FrEIA.modules as fm
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import nn

SIZE, STEPS = 224, 20


def pixels(path):
    grey = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((np.asarray(grey) / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)


def features(model, paths):
    maps = []
    with torch.inference_mode():
        for start in range(0, len(paths), 16):
            images = torch.from_numpy(np.stack([pixels(p) for p in paths[start : start + 16]]))
            maps += model.forward_intermediates(images, indices=[7], norm=True, intermediates_only=True)
    return torch.cat(maps).clone()


def subnet(kernel, hidden):
    def build(inputs, outputs):
        conv = lambda i, o: nn.Conv2d(i, o, kernel, padding="same")
        return nn.Sequential(conv(inputs, hidden), nn.ReLU(), conv(hidden, outputs))

    return build


def flow(channels, side):
    nodes = ff.SequenceINN(channels, side, side)
    for step in range(STEPS):
        kernel = 3 if step % 2 == 0 else 1
        nodes.append(
            fm.AllInOneBlock,
            subnet_constructor=subnet(kernel, channels // 6),
            affine_clamping=2.0,
            permute_soft=False,
        )
    return nodes


def train(maps, epochs, seed):
    torch.manual_seed(seed)
    shape = maps.shape[1:]
    model = flow(shape[0], shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    for _ in range(epochs):
        for batch in torch.randperm(len(maps)).split(32):
            z, log_det = model(F.layer_norm(maps[batch], shape))
            loss = (0.5 * z.square().sum((1, 2, 3)) - log_det).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def scores(model, maps):
    with torch.inference_mode():
        z = torch.cat([model(F.layer_norm(m, maps.shape[1:]))[0] for m in maps.split(16)])
        prob = -torch.exp(-0.5 * z.square()).mean(1, keepdim=True)
        return F.interpolate(prob, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0].numpy()


def mask(path, data):
    if path.parent.name == "good":
        return np.zeros((SIZE, SIZE), bool)
    file = data / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
    return np.asarray(Image.open(file).convert("L").resize((SIZE, SIZE), Image.NEAREST)) > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(2)
    data = args.shared / "data/screw"
    model = timm.create_model("deit_tiny_patch16_224").eval()
    model.load_state_dict(load_file(args.shared / "weights/deit_tiny_patch16_224.fb_in1k/model.safetensors"))
    normal = features(model, sorted((data / "train/good").glob("*.png")))
    paths = sorted((data / "test").glob("*/*.png"))
    test = features(model, paths)
    masks = np.stack([mask(path, data) for path in paths])
    labels = [path.parent.name != "good" for path in paths]
    for seed in args.seeds:
        maps = scores(train(normal, args.epochs, seed), test)
        image = roc_auc_score(labels, maps.max((1, 2)))
        pixel = roc_auc_score(masks.ravel(), maps.ravel())
        print(f"seed {seed}: image {image:.4f} pixel {pixel:.4f}", flush=True)


if __name__ == "__main__":
    main()
