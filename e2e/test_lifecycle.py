"""Starting, refusing to start, draining and ending."""

import signal
import socket
import threading
import time

import openai
import pytest

from service import KEY, MODEL, Service, command, free_port

LONG = dict(max_tokens=300, extra_body={"ignore_eos": True})


def ends_in_one_line(process, *words):
    out, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and process.returncode > 0, said
    [line] = said.splitlines()
    assert all(word in line for word in words) and "panicked" not in line, said


def test_it_says_what_it_loaded_and_where_it_listens(start):
    service = start("--context", 256)
    said = service.said()
    assert str(service.port) in said and "MiB" in said and "256" in said


def test_a_port_in_use_is_said_in_a_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ends_in_one_line(command("serve", MODEL, "--listen", f"127.0.0.1:{port}"), str(port))


def test_a_missing_model_is_said_in_a_line():
    ends_in_one_line(command("serve", "/nonexistent/model.gguf", "--listen", f"127.0.0.1:{free_port()}"), "/nonexistent/model.gguf")
    ends_in_one_line(command("serve", "no-such-model", "--listen", f"127.0.0.1:{free_port()}"), "no-such-model")


def test_listening_to_the_world_needs_a_key():
    ends_in_one_line(command("serve", MODEL, "--listen", f"0.0.0.0:{free_port()}", keys=None), "key")


def test_without_keys_on_loopback_anyone_may_ask(start):
    service = start("--context", 256, keys=None)
    assert service.chat(max_tokens=2).choices[0].message.content


def collect(stream, into):
    for chunk in stream:
        into.append(chunk)


def test_sigterm_lets_running_answers_end_and_takes_no_new_ones():
    service = Service("--context", 1024)
    try:
        stream = service.complete("Once upon a time", stream=True, **LONG)
        chunks = [next(iter(stream))]
        reader = threading.Thread(target=collect, args=(stream, chunks))
        reader.start()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
            service.complete(max_tokens=1)
        reader.join(timeout=120)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert service.process.wait(timeout=20) == 0
    finally:
        service.stop()


def test_an_idle_service_ends_at_once_on_sigterm_and_on_ctrl_c():
    for number in (signal.SIGTERM, signal.SIGINT):
        service = Service("--context", 256)
        service.process.send_signal(number)
        assert service.process.wait(timeout=10) == 0, service.said()
        service.stop()


def test_a_second_signal_ends_at_once():
    service = Service("--context", 1024)
    try:
        stream = service.complete("Once upon a time", stream=True, **{**LONG, "max_tokens": 900})
        next(iter(stream))
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=2) != 0
    finally:
        service.stop()
