"""What is measured: the workloads, and what a figure of one is and of what limit of the machine it is a share.

- `prefill:N`: tokens a second until the first token after a prompt of N random tokens;
- `decode:C`: tokens a second of one answer that begins at position C;
- `batch:B`: tokens a second, in all, of B answers that run together after prompts of 32 tokens;
- `start`: milliseconds from nothing, the file in the page cache, to the first token after 32;
- `clients:N`, `rate:R`, `shared:N`: over HTTP, see `load.py`.
"""

from dataclasses import dataclass

import gguf

from single import shape

IN_PROCESS = [f"prefill:{n}" for n in (128, 512, 2048, 8192)] + [f"decode:{n}" for n in (0, 2048, 8192)] + \
    [f"batch:{n}" for n in (1, 4, 8, 16, 32, 64)] + ["start"]
OVER_HTTP = ["clients:32"] + [f"rate:{rate}" for rate in (1, 2, 4, 8)] + ["shared:64"]


def is_over_http(workload):
    return workload.partition(":")[0] in ("clients", "rate", "shared")


def unit(workload):
    kind = workload.partition(":")[0]
    return {"start": "ms", "shared": "ms to the first token, p50", "clients": "answers/s",
            "rate": "answers/s"}.get(kind, "tokens/s")


def less_is_better(workload):
    return workload.partition(":")[0] in ("start", "shared")


def figure(workload, run):
    kind = workload.partition(":")[0]
    if kind == "prefill":
        return shape(workload)[1] / run["first_token_ms"] * 1e3
    return run[{"start": "first_token_ms", "shared": "first_token_ms_p50", "clients": "answers_per_s",
                "rate": "answers_per_s"}.get(kind, "tokens_per_s")]


@dataclass
class Weights:
    """What a step of a model has to do at least."""
    file_mib: float
    # Of the matrices that every token is multiplied with; bytes read for one token, the output's included.
    parameters: int
    bytes: int
    is_float: bool
    kv_bytes_per_position: int

    @staticmethod
    def of(path):
        reader = gguf.GGUFReader(path)
        names = {tensor.name for tensor in reader.tensors}
        field = lambda name: int(reader.fields[f"llama.{name}"].parts[-1][0])
        heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
        head_dim = field("attention.key_length") if "llama.attention.key_length" in reader.fields \
            else field("embedding_length") // heads
        matrices = [tensor for tensor in reader.tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1]
        output = [tensor for tensor in reader.tensors
                  if tensor.name == ("output.weight" if "output.weight" in names else "token_embd.weight")]
        return Weights(
            file_mib=path.stat().st_size / (1 << 20),
            parameters=sum(int(tensor.n_elements) for tensor in matrices),
            bytes=sum(int(tensor.n_bytes) for tensor in matrices + output),
            is_float=matrices[0].tensor_type.name in ("F32", "F16", "BF16"),
            kv_bytes_per_position=2 * 2 * field("block_count") * kv_heads * head_dim)

    def share(self, workload, rate, peaks):
        """Of the machine's peak, and which: products (of bytes; of `f32` where weights are floats) or reading."""
        if is_over_http(workload) or workload == "start":
            return None
        kind, prompt_tokens, sequences, answer_tokens = shape(workload)
        products = peaks["float_gop_s" if self.is_float else "byte_gop_s"]
        computing = 2 * self.parameters * rate / 1e9 / products
        if kind == "prefill":
            return computing, "f32" if self.is_float else "int8"
        positions = prompt_tokens + answer_tokens / 2
        reading = (self.bytes / sequences + self.kv_bytes_per_position * positions) * rate / 1e9 / peaks["read_gb_s"]
        return (reading, "reading") if reading > computing else (computing, "f32" if self.is_float else "int8")
