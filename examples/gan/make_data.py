"""The handwritten digits of scikit-learn (1,797 images of 8 x 8 with values from 0 to 16, no download): data/digits.npz."""

import pathlib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

digits = load_digits()
train, test = train_test_split(np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target)
folder = pathlib.Path(__file__).parent / "data"
folder.mkdir(exist_ok=True)
images = digits.images[..., None].astype(np.float32)
np.savez_compressed(
    folder / "digits.npz",
    x_train=images[train],
    y_train=digits.target[train],
    x_test=images[test],
    y_test=digits.target[test],
)
