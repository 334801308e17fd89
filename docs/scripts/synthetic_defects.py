"""Puts synthetic defects into the normal images that a detector held out of its training.

The result is a data set in MVTec AD's layout for choosing settings without looking at real defects:
CutPaste patches (another place of the same image, turned) and patches of smooth noise, each with its mask.

    python synthetic_defects.py DETECTOR DATA OUT [SEED]        # needs pillow and numpy
"""
import json
import pathlib
import shutil
import sys

import numpy as np
from PIL import Image, ImageFilter

detector, data, out = map(pathlib.Path, sys.argv[1:4])
rng = np.random.default_rng(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
held_out = json.load(open(detector / "config.json"))["training"]["held_out"]
for folder in ["train/good", "test/good", "test/cutpaste", "test/noise", "ground_truth/cutpaste", "ground_truth/noise"]:
    (out / folder).mkdir(parents=True)


def smooth(shape, radius):
    noise = Image.fromarray(rng.integers(0, 256, shape, np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    noise = np.asarray(noise, np.float32)
    return (noise - noise.mean()) / noise.std()


def product(grey):
    """Where the product is: away from the border's median."""
    border = np.concatenate([grey[:8].ravel(), grey[-8:].ravel(), grey[:, :8].ravel(), grey[:, -8:].ravel()])
    return np.abs(grey - np.median(border)) > 20


def place(inside, h, w):
    """A box whose centre lies on the product."""
    rows, cols = np.nonzero(inside)
    i = rng.integers(len(rows))
    y = int(np.clip(rows[i] - h // 2, 0, inside.shape[0] - h))
    x = int(np.clip(cols[i] - w // 2, 0, inside.shape[1] - w))
    return y, x


def cutpaste(image, inside):
    h, w = rng.integers(8, 33, 2)
    sy, sx = place(inside, h, w)
    patch = np.rot90(image[sy:sy + h, sx:sx + w], rng.integers(1, 4)).copy()
    h, w = patch.shape[:2]
    y, x = place(inside, h, w)
    spoiled, mask = image.copy(), np.zeros(image.shape[:2], bool)
    spoiled[y:y + h, x:x + w] = patch
    mask[y:y + h, x:x + w] = True
    return spoiled, mask


def noise(image, inside):
    h, w = rng.integers(12, 41, 2)
    y, x = place(inside, h, w)
    shape = smooth((h, w), 4) > 0.3
    change = smooth((h, w), 1.5) * 35 + rng.choice([-25, 25])
    spoiled, mask = image.astype(np.float32), np.zeros(image.shape[:2], bool)
    region = spoiled[y:y + h, x:x + w]
    region[shape] += (change[..., None] if image.ndim == 3 else change)[shape]
    mask[y:y + h, x:x + w] = shape
    return np.clip(spoiled, 0, 255).astype(np.uint8), mask


for number, name in enumerate(held_out):
    shutil.copy(data / name, out / "test/good" / f"{number:03}.png")
    if number < 4:
        shutil.copy(data / name, out / "train/good" / f"{number:03}.png")
    image = np.asarray(Image.open(data / name))
    grey = image if image.ndim == 2 else image.mean(axis=2)
    for kind, spoil in [("cutpaste", cutpaste), ("noise", noise)]:
        spoiled, mask = spoil(image, product(grey.astype(np.float32)))
        Image.fromarray(spoiled).save(out / "test" / kind / f"{number:03}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(out / "ground_truth" / kind / f"{number:03}_mask.png")
