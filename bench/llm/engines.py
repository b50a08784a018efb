"""The engines that are compared: how a measurement of each is started, with which settings, and what it can't do.

A peer is measured at each of the settings that may be its best; the better counts. What is left at its default: keys and
values are kept in f16 by llama.cpp and mistral.rs, in 8 bits by OpenVINO, which computes F16 and BF16 weights in bf16 where
the processor has that. Over HTTP this engine guesses ahead as it does by default, in one process it does not.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from workloads import is_over_http

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OURS = "tureen"
# Packed weights of earlier starts (`packed_max`).
PACKED = ROOT / ".cache/bench/packed"
LLAMA_SERVER = ROOT / ".cache/bench/llama-server/llama-server"


@dataclass(frozen=True)
class Variant:
    """An engine at certain settings."""
    engine: str
    settings: str
    script: str
    flags: tuple[str, ...] = ()

    @property
    def name(self):
        return f"{self.engine}, {self.settings}" if self.settings else self.engine

    def command(self, path, threads, workload, seed):
        common = [str(path), str(threads), workload, str(seed)]
        if self.script == "bench":
            return [str(target() / "examples" / "bench"), *common, *self.flags]
        return [sys.executable, str(HERE / self.script), *common, *self.flags]


def target():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def variants(workload):
    """Those that take part, and for the others why they don't."""
    if is_over_http(workload):
        taking = [Variant(OURS, "", "load.py", (str(target() / "tureen"),))]
        absent = {"OpenVINO GenAI": "has no server of its own on PyPI",
                  "mistral.rs": "its package on PyPI holds no server"}
        if LLAMA_SERVER.exists():
            taking += [Variant("llama.cpp", "flash attention", "load.py", (str(LLAMA_SERVER), "flash")),
                       Variant("llama.cpp", "", "load.py", (str(LLAMA_SERVER),))]
        else:
            absent["llama.cpp"] = "llama-server could not be built"
        return taking, absent
    kind, _, number = workload.partition(":")
    taking = [Variant(OURS, "", "bench"),
              Variant("llama.cpp", "", "peer_llama.py"),
              Variant("llama.cpp", "flash attention", "peer_llama.py", ("flash",))]
    if kind == "prefill" and int(number) > 512:
        taking.append(Variant("llama.cpp", "flash attention, steps of 2048", "peer_llama.py", ("flash", "long")))
    if kind == "batch" and int(number) > 1:
        taking.append(Variant("llama.cpp", "flash attention, one cache", "peer_llama.py", ("flash", "unified")))
        taking.append(Variant("llama.cpp", "one cache", "peer_llama.py", ("unified",)))
    taking.append(Variant("OpenVINO GenAI", "paged attention", "peer_openvino.py"))
    if not (kind == "batch" and int(number) > 1):
        taking.append(Variant("OpenVINO GenAI", "SDPA", "peer_openvino.py", ("sdpa",)))
    taking.append(Variant("mistral.rs", "", "peer_mistralrs.py"))
    if kind == "start":
        taking.append(Variant(OURS, "packed weights kept", "bench", (str(PACKED),)))
    return taking, {}
