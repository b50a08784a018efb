#!/usr/bin/env python3
"""Writes rotary_golden.json: what `transformers` computes for every kind of rope scaling, from configurations in the
older form and the newer.

    pip install torch transformers
    python crates/formats/tests/make_rotary_golden.py
"""

import json
from pathlib import Path

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

BASE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=32, max_position_embeddings=8192, rope_theta=500000.0)
PAIRS = 32
LONG = dict(short_factor=[1.0 + 0.02 * i for i in range(PAIRS)], long_factor=[1.0 + 0.5 * i for i in range(PAIRS)])
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=2048)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=2048)


def llama(**config):
    return {"model_type": "llama", **BASE, **config}


def phi3(scaling, **config):
    base = {"model_type": "phi3", **BASE, "original_max_position_embeddings": 4096, **config}
    return {**base, "rope_scaling": scaling}


CASES = {
    "plain": (llama(), 100),
    "linear": (llama(rope_scaling=dict(type="linear", factor=2.5)), 100),
    "dynamic within": (llama(rope_scaling=dict(type="dynamic", factor=2.0)), 8192),
    "dynamic beyond": (llama(rope_scaling=dict(rope_type="dynamic", factor=2.0)), 20000),
    "llama3": (llama(rope_scaling=LLAMA3), 100),
    "llama3, head of its own size": (llama(rope_scaling=LLAMA3, head_dim=96), 100),
    "yarn": (llama(rope_scaling=YARN), 100),
    "yarn, all options": (llama(rope_scaling=dict(**YARN, beta_fast=16, beta_slow=2, attention_factor=1.5)), 100),
    "yarn, DeepSeek's mscale": (llama(rope_scaling=dict(**YARN, mscale=0.9, mscale_all_dim=0.7)), 100),
    "yarn, newer form": (llama(rope_parameters=dict(**YARN, rope_theta=10000.0)), 100),
    "longrope within": (phi3(dict(type="longrope", **LONG)), 4096),
    "longrope beyond": (phi3(dict(type="longrope", **LONG)), 4097),
    "longrope, factor": (phi3(dict(type="longrope", factor=32.0, **LONG)), 100),
    "longrope, attention factor": (phi3(dict(type="longrope", attention_factor=1.25, **LONG)), 100),
    "partial": (phi3(None, partial_rotary_factor=0.75), 100),
}


def main():
    golden = []
    for name, (config, context) in CASES.items():
        kind = {"llama": transformers.LlamaConfig, "phi3": transformers.Phi3Config}[config["model_type"]]
        parsed = kind.from_dict(json.loads(json.dumps(config)))
        rope_type = parsed.rope_parameters["rope_type"]
        if rope_type == "default":
            module = {"llama": LlamaRotaryEmbedding, "phi3": Phi3RotaryEmbedding}[config["model_type"]]
            frequencies, attention_factor = module.compute_default_rope_parameters(parsed)
        else:
            frequencies, attention_factor = ROPE_INIT_FUNCTIONS[rope_type](parsed, seq_len=context)
        golden.append(dict(name=name, config=config, context=context, frequencies=frequencies.tolist(),
                           attention_factor=attention_factor))
    text = json.dumps(dict(transformers=transformers.__version__, cases=golden), indent=None)
    Path(__file__).with_name("rotary_golden.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
