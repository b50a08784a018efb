"""`tureen run` and its standard input, against the service."""

import subprocess

from service import KEY, command

GREEDY = ["--temperature", 0, "--tokens-max", 8]


def run(service, *prompt, stdin=subprocess.DEVNULL):
    return command("run", service.model, *prompt, "--at", service.url, *GREEDY, stdin=stdin, key=KEY)


def test_a_file_and_a_pipe_go_below_the_prompt(service, tmp_path):
    joined, _ = run(service, "Repeat this:\n\nabc").communicate(timeout=60)
    (tmp_path / "below").write_text("abc")
    with open(tmp_path / "below") as below:
        assert run(service, "Repeat", "this:", stdin=below).communicate(timeout=60)[0] == joined
    assert run(service, "Repeat this:", stdin=subprocess.PIPE).communicate("abc", timeout=60)[0] == joined


def test_a_pipe_is_waited_for_as_long_as_it_is_open(service):
    joined, _ = run(service, "Repeat this:\n\nabc").communicate(timeout=60)
    process = run(service, "Repeat this:", stdin=subprocess.PIPE)
    # Said after some seconds, so that nobody wonders; the text comes after that.
    assert "waiting for the end of standard input" in process.stderr.readline()
    assert process.communicate("abc", timeout=60)[0] == joined
