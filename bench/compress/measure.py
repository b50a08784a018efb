#!/usr/bin/env python3
"""The same float models quantised by Tureen and by llama.cpp: size, time, perplexity, divergence. See `run`.

Both quantisers get the same importance, where it is used: the mean squares of activations that `measure importance`
found on the first part of the text; types that are chosen for the size of Tureen's file (--smallest) go by that part too.
The rest of the text is what all files are measured on, by Tureen's engine; with --peer also by llama.cpp. Times are of two threads, processor seconds beside them, since machines are shared.
"""

import argparse
import ctypes
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
CALIBRATION_SHARE = 0.4
WINDOW = 512


def quantise(source, target, file_type, importance):
    """llama.cpp's quantiser, in this process."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = file_type, 2
    if importance:
        columns = {name: numpy.asarray(values, numpy.float32) for name, values in json.loads(Path(importance).read_text()).items()}
        entries = (llama_cpp.llama_model_imatrix_data * (len(columns) + 1))()
        for entry, (name, values) in zip(entries, columns.items()):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        parameters.imatrix = entries
    failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    assert failed == 0, f"llama.cpp could not make {target}"


def peer_perplexity(path, text):
    """By llama.cpp, in windows as Tureen's."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, n_ubatch=WINDOW, n_threads=2, n_threads_batch=2,
                            logits_all=True, verbose=False)
    tokens = model.tokenize(text.encode(), add_bos=False, special=False)
    total, scored = 0.0, 0
    for start in range(0, len(tokens) - WINDOW + 1, WINDOW):
        model.reset()
        model.eval(tokens[start:start + WINDOW])
        rows = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits(model.ctx), shape=(WINDOW, model.n_vocab()))[:-1]
        largest = rows.max(axis=1, keepdims=True)
        norm = numpy.log(numpy.exp(rows - largest).sum(axis=1, dtype=numpy.float64)) + largest[:, 0]
        total -= (rows[numpy.arange(WINDOW - 1), tokens[start + 1:start + WINDOW]] - norm).sum()
        scored += WINDOW - 1
    return float(numpy.exp(total / scored))


def timed(command):
    """A command's output, the seconds it took and its processor seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return output, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", help="the example `measure` of crates/compress")
    parser.add_argument("--folder", type=Path, help="where the sources are, and what is made goes")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--models", nargs="*", default=["noisy", "wide"])
    parser.add_argument("--types", nargs="*", default=["Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K", "Q2_K"])
    parser.add_argument("--peer", action="store_true", help="perplexity by llama.cpp too")
    parser.add_argument("--smallest", action="store_true", help="types chosen for the same size too")
    parser.add_argument("--quantise", nargs=4, metavar=("SOURCE", "TARGET", "TYPE", "IMPORTANCE"))
    arguments = parser.parse_args()
    if arguments.quantise:
        source, target, kind, importance = arguments.quantise
        began = time.monotonic()
        quantise(source, target, FILE_TYPES[kind], importance if importance != "-" else None)
        print(json.dumps({"seconds": time.monotonic() - began}))
        return
    folder, program = arguments.folder, arguments.program
    text = arguments.text.read_text()
    cut = text.index("\n\n", int(CALIBRATION_SHARE * len(text)))
    known, asked = folder / "calibration.txt", folder / "asked.txt"
    known.write_text(text[:cut]), asked.write_text(text[cut:])
    heading = "| source | type | importance | by | MB | seconds | cpu s | perplexity | KL | same first |"
    print(heading + (" llama.cpp's perplexity |" if arguments.peer else ""))
    print("|" + " --- |" * (10 + arguments.peer), flush=True)
    for name in arguments.models:
        source = folder / f"{name}.gguf"
        importance = folder / f"{name}.importance.json"
        timed([program, "importance", source, known, importance])
        for kind in arguments.types:
            for weighed in (False, True):
                for by in ("tureen", "llama.cpp") + (("smallest",) if weighed and arguments.smallest else ()):
                    made = folder / f"made-{by}.gguf"
                    if by == "tureen":
                        command = [program, "make", source, kind, made] + ([importance] if weighed else [])
                        size = None
                    elif by == "smallest":
                        command = [program, "smallest", source, size, made, known]
                    else:
                        command = [sys.executable, __file__, "--quantise", source, made, kind, importance if weighed else "-"]
                    output, _, cpu = timed([str(part) for part in command])
                    seconds = json.loads(output.splitlines()[-1])["seconds"]
                    found = json.loads(timed([program, "compare", source, made, asked])[0])
                    row = [name, kind, "yes" if weighed else "no", by, f"{made.stat().st_size / 1e6:.2f}", f"{seconds:.2f}",
                           f"{cpu:.2f}", f"{found['perplexity']:.4f}", f"{found['kl']:.5f}", f"{found['same_first']:.4f}"]
                    if arguments.peer:
                        row.append(f"{peer_perplexity(made, asked.read_text()):.4f}")
                    print("| " + " | ".join(row) + " |", flush=True)
                    size = size or made.stat().st_size
                    made.unlink()
        print(f"(as it was: perplexity {found['original']:.4f}, {found['tokens']} tokens)", flush=True)


if __name__ == "__main__":
    main()
