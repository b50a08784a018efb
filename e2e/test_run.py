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


def test_a_pipe_that_stays_silent_is_not_waited_for(service):
    alone, _ = run(service, "Say hello.").communicate(timeout=60)
    process = run(service, "Say hello.", stdin=subprocess.PIPE)
    # Left open, as a service manager does.
    assert process.wait(timeout=60) == 0
    assert process.stdout.read() == alone
    assert "nothing came for 5 s" in process.stderr.read()
