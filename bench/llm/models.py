"""The models that are measured: variants of SmolLM2-135M, and random weights in the shape of larger Llamas."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "fixtures" / "smollm2"))
SMALL = ["Q4_1", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "F16", "BF16"]
LARGE = ["1B-Q4_K_M", "1B-Q4_0", "3B-Q4_K_M", "3B-Q4_0"]


def model(name):
    """A variant of SmolLM2-135M by its quantisation, SHAPE-MIX of random weights (1B-Q4_K_M), or a file."""
    if Path(name).is_file():
        return Path(name)
    from reference import CACHE, FILE_TYPES, published, variant
    if name in FILE_TYPES:
        return variant(name)
    shape, _, mix = name.partition("-")
    path = CACHE / f"{name}.gguf"
    if not path.exists():
        subprocess.run([sys.executable, HERE / "random_model.py", shape, mix, published(), path], check=True)
    return path


def in_page_cache(path):
    """Reads a file, so that a start is not measured by the disk."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
