"""The handwritten digits of scikit-learn (1,797 images of 8 x 8, no download) as the data of the examples.

data/train.csv, data/test.csv: each image resampled to 10 x 10, which are 100 features, and its label.
data/digits.npz: the images as they are, with values from 0 to 16.
"""

import pathlib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def resampled(images, size):
    """Bilinear, corner to corner."""
    at = np.linspace(0, images.shape[1] - 1, size)
    low = np.minimum(at.astype(int), images.shape[1] - 2)
    part = at - low
    rows = images[:, low] * (1 - part)[None, :, None] + images[:, low + 1] * part[None, :, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def write_csv(path, features, labels):
    names = [f"f{i}" for i in range(features.shape[1])]
    with open(path, "w") as file:
        file.write(",".join([*names, "label"]) + "\n")
        for row, label in zip(features, labels):
            file.write(",".join([*(f"{value:.4g}" for value in row), str(label)]) + "\n")


digits = load_digits()
train, test = train_test_split(np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target)
folder = pathlib.Path(__file__).parent / "data"
folder.mkdir(exist_ok=True)
features = (resampled(digits.images, 10) / 16).reshape(-1, 100)
write_csv(folder / "train.csv", features[train], digits.target[train])
write_csv(folder / "test.csv", features[test], digits.target[test])
images = digits.images[..., None].astype(np.float32)
np.savez_compressed(
    folder / "digits.npz",
    x_train=images[train],
    y_train=digits.target[train],
    x_test=images[test],
    y_test=digits.target[test],
)
