"""What every single measurement shares: the shape of a workload inside one process, and the memory that was resident."""

DECODE_TOKENS = 64
SHORT_PROMPT_TOKENS = 32


def shape(workload):
    """Kind, tokens of each prompt, sequences, tokens of each answer."""
    kind, _, number = workload.partition(":")
    number = int(number or 1)
    return kind, *dict(
        prefill=(number, 1, 1), decode=(max(number, 1), 1, DECODE_TOKENS),
        batch=(SHORT_PROMPT_TOKENS, number, DECODE_TOKENS), start=(SHORT_PROMPT_TOKENS, 1, 1))[kind]


def resident_mib(process="self"):
    """The most that a process has had."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
