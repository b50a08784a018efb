"""What every single measurement shares: the shape of a workload inside one process, and the memory that was resident."""

DECODE_TOKENS = 64
SHORT_PROMPT_TOKENS = 32
# What the smallest of the measured models was made for: a prompt of that length is cut so that its answer fits.
CONTEXT_MAX = 8192


def shape(workload):
    """Kind, tokens of each prompt, sequences, tokens of each answer."""
    kind, _, number = workload.partition(":")
    number = int(number or 1)
    prompt_tokens, sequences, answer_tokens = dict(
        prefill=(number, 1, 1), decode=(max(number, 1), 1, DECODE_TOKENS),
        batch=(SHORT_PROMPT_TOKENS, number, DECODE_TOKENS), start=(SHORT_PROMPT_TOKENS, 1, 1))[kind]
    return kind, min(prompt_tokens, CONTEXT_MAX - answer_tokens - 1), sequences, answer_tokens


def resident_mib(process="self"):
    """The most that a process has had."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
