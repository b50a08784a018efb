#!/usr/bin/env python3
"""Writes a GGUF checkpoint with random weights in the shape of a known Llama, to measure speed with: nobody has to
fetch gigabytes for it. Its answers mean nothing; every activation stays finite.

    pip install gguf numpy
    python bench/llm/random_model.py 1B Q4_K_M SOURCE.gguf TARGET.gguf

SOURCE is any GGUF file with a byte-level BPE tokeniser, which is taken over and filled up to the shape's vocabulary.
Q4_K_M follows llama.cpp's mix: Q6_K for the embedding (which is the output too) and, in the layers where that
quantiser uses more bits, for the values and the down projection; Q4_K elsewhere.
"""

import sys
from pathlib import Path

import gguf
import numpy

# Hidden, layers, heads, heads of keys, dimensions of a head, feed-forward, vocabulary (Llama 3.2).
SHAPES = {
    "tiny": (512, 2, 8, 4, 64, 1024, 50000),
    "1B": (2048, 16, 32, 8, 64, 8192, 128256),
    "3B": (3072, 28, 24, 8, 128, 8192, 128256),
}
RANDOM = numpy.random.default_rng(1)


def blocks(quantisation, rows, columns):
    """Random blocks whose values have a deviation of about 1 / sqrt(columns)."""
    deviation = 1 / numpy.sqrt(columns)
    if quantisation == "F16":
        return (RANDOM.standard_normal((rows, columns), dtype=numpy.float32) * deviation).astype(numpy.float16)
    kind = gguf.GGMLQuantizationType[quantisation]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    data = RANDOM.integers(0, 256, (rows * columns // elements, size), dtype=numpy.uint8)

    def scale(at, value):
        data[:, at:at + 2] = numpy.frombuffer(numpy.float16(value).tobytes(), numpy.uint8)

    if quantisation == "Q4_0":      # d, codes 0..15 less 8
        scale(0, deviation / 4.6)
    elif quantisation == "Q8_0":    # d, codes -128..127
        scale(0, deviation / 74)
    elif quantisation == "Q4_K":    # d, dmin, scales and minima of 6 bits: d * 32 * 7.5 is about dmin * 32
        scale(0, deviation / 150), scale(2, deviation / 150 * 7.5)
    elif quantisation == "Q6_K":    # codes, 16 scales of 8 bits, d
        data[:, 192:208] = RANDOM.integers(40, 80, (len(data), 16), dtype=numpy.uint8)
        scale(208, deviation / 60 / 18)
    else:
        sys.exit(f"no random blocks of {quantisation}: Q4_0, Q8_0, Q4_K, Q6_K, Q4_K_M and F16 can be had")
    return data.reshape(rows, -1)


def quantisation_of(mix, name, layer, layers):
    if mix != "Q4_K_M":
        return mix
    if layer is None:
        return "Q6_K"
    more_bits = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return "Q6_K" if name in ("attn_v", "ffn_down") and more_bits else "Q4_K"


def add_tokenizer(writer, source, vocabulary):
    reader = gguf.GGUFReader(source)
    field = lambda name: reader.fields[f"tokenizer.ggml.{name}"]
    text = lambda name: [str(bytes(field(name).parts[i]), "utf-8") for i in field(name).data]
    tokens = text("tokens")[:vocabulary]
    types = [int(field("token_type").parts[i][0]) for i in field("token_type").data][:vocabulary]
    missing = vocabulary - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(text("pre")[0])
    writer.add_token_list(tokens + [f"<unused{i}>" for i in range(missing)])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * missing)
    writer.add_token_merges(text("merges"))
    for name in ("bos_token_id", "eos_token_id"):
        getattr(writer, f"add_{name}")(int(field(name).parts[-1][0]))


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    shape, mix, source, target = sys.argv[1:]
    hidden, layers, heads, kv_heads, head_dim, inner, vocabulary = SHAPES[shape]
    part = Path(target).with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(f"random {shape} {mix}")
    writer.add_context_length(16384)
    writer.add_embedding_length(hidden), writer.add_block_count(layers), writer.add_feed_forward_length(inner)
    writer.add_head_count(heads), writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim), writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim), writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5), writer.add_vocab_size(vocabulary)
    writer.add_file_type({"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}.get(mix, 0))
    add_tokenizer(writer, source, vocabulary)

    def matrix(name, layer, rows, columns):
        quantisation = quantisation_of(mix, name, layer, layers)
        place = f"{name}.weight" if layer is None else f"blk.{layer}.{name}.weight"
        kind = None if quantisation == "F16" else gguf.GGMLQuantizationType[quantisation]
        writer.add_tensor(place, blocks(quantisation, rows, columns), raw_dtype=kind)

    def norm(place):
        writer.add_tensor(f"{place}.weight", numpy.ones(hidden, numpy.float32))

    matrix("token_embd", None, vocabulary, hidden)
    norm("output_norm")
    for layer in range(layers):
        norm(f"blk.{layer}.attn_norm"), norm(f"blk.{layer}.ffn_norm")
        matrix("attn_q", layer, heads * head_dim, hidden)
        matrix("attn_k", layer, kv_heads * head_dim, hidden)
        matrix("attn_v", layer, kv_heads * head_dim, hidden)
        matrix("attn_output", layer, hidden, heads * head_dim)
        matrix("ffn_gate", layer, inner, hidden)
        matrix("ffn_up", layer, inner, hidden)
        matrix("ffn_down", layer, hidden, inner)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


main()
