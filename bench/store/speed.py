"""Seconds of push and pull beside those of cp and sha256sum: speed.py FOLDER PROGRAM [ROUNDS]. Needs 8 GB of disk."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy

GB = 10**9
BYTES = 2 * GB
TENSORS = 100


def header(dtype, width):
    """Of a safetensors file with TENSORS tensors of BYTES together."""
    each = BYTES // TENSORS
    entries = {
        f"layer.{index}": {"dtype": dtype, "shape": [each // width], "data_offsets": [index * each, (index + 1) * each]}
        for index in range(TENSORS)
    }
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def noise(path):
    """What nothing can be saved of, as quantised weights nearly are."""
    with open(path, "wb") as file:
        for _ in range(BYTES // (10**7)):
            file.write(os.urandom(10**7))


def weights(path):
    """Normally distributed bf16, with a standard deviation of its own for each tensor."""
    chance = numpy.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(header("BF16", 2))
        for index in range(TENSORS):
            floats = chance.standard_normal(BYTES // TENSORS // 2, dtype="f4") * numpy.float32(0.01 * (1 + index % 7))
            file.write((floats.view("u4") >> 16).astype("<u2").tobytes())


def timed(*command):
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def measure(work, program, path):
    copy, folder = work / "copied", work / "stores"
    shutil.rmtree(folder, ignore_errors=True)
    timed("sync")
    copied, hashed = timed("cp", path, copy), timed("sha256sum", path)
    synced = timed("sync", copy)
    copy.unlink()
    told = json.loads(subprocess.check_output([program, path, folder]))
    shutil.rmtree(folder)
    both = copied + hashed
    print(
        f"| {path.name} | {copied:.2f} + {hashed:.2f} | {synced:.2f} | {told['push_s']:.2f} | {100 * both / told['push_s']:.0f}% "
        f"| {told['pull_s']:.2f} | {100 * both / told['pull_s']:.0f}% | {100 * told['stored'] / told['bytes']:.0f}% |",
        flush=True,
    )


def main():
    work, program = Path(sys.argv[1]), sys.argv[2]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    print(f"{BYTES} bytes, seconds; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| file | cp + sha256sum | sync of the copy | push | of that speed | pull | of that speed | kept in |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, make in (("noise.bin", noise), ("weights.safetensors", weights)):
        path = work / name
        make(path)
        for _ in range(rounds):
            measure(work, program, path)
        path.unlink()


if __name__ == "__main__":
    main()
