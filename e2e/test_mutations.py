"""Two thousand broken requests: each gets an answer that is no server error, and the service is as before."""

import http.client
import json
import random

from service import KEY

REQUESTS = 2000
SEED = 20240607
BODIES = [
    ("/v1/chat/completions", {"model": "MODEL", "messages": [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "max_tokens": 2, "temperature": 0.5, "top_p": 0.9,
     "n": 1, "stop": ["a", "b"], "seed": 1, "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1},
     "presence_penalty": 0.5, "frequency_penalty": 0.5, "stream": False, "user": "x"}),
    ("/v1/chat/completions", {"model": "MODEL", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 2,
     "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"model": "MODEL", "prompt": [[504, 253]], "max_tokens": 2, "echo": True, "logprobs": 2,
     "stop": "x", "logit_bias": {"7": -100}, "n": 2}),
    ("/v1/completions", {"model": "MODEL", "prompt": ["Hi", "there"], "max_tokens": 1, "stream": True}),
]
ODD = [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -2**63, 1e308, -0.0, 1e-320, "", "a", "\u0000", "\ud800", "x" * 10_000,
       [], {}, [[]], [None], {"": None}, [1] * 2000, {"type": "text"}, "MODEL", "<|im_end|>", "NaN", [[[[[[]]]]]]]


def paths(value, at=()):
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from paths(inner, (*at, key))


def mutated_value(body, draw):
    """The body with one value somewhere replaced, removed, doubled or renamed."""
    body = json.loads(json.dumps(body))
    *front, last = draw.choice([at for at in paths(body) if at])
    parent = body
    for key in front:
        parent = parent[key]
    what = draw.randrange(4)
    if what <= 1:
        parent[last] = draw.choice(ODD)
    elif what == 2:
        del parent[last]
    elif isinstance(parent, list):
        parent.extend(parent * draw.randrange(1, 50))
    else:
        parent[str(last) + draw.choice(["", "s", "\u0000", "_"])] = parent.pop(last)
    return body


def mutated_bytes(data, draw):
    data = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(5):
            case 0:
                data[at:at] = bytes([draw.randrange(256)])
            case 1:
                del data[at:at + draw.randrange(1, 20)]
            case 2 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 3:
                data[at:at] = draw.choice([b"[" * 300, b'{"a":' * 300, b"\xed\xa0\x80", b"9" * 400, b'\\u0000', b"//"])
            case _:
                del data[at:]
        data = data or bytearray(b"{")
    return bytes(data)


def mutated_headers(length, draw):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Content-Length": str(length)}
    name = draw.choice(list(headers) + ["Accept", "X-Request-Id", "Traceparent", "Origin"])
    value = draw.choice(["", "x" * 5000, "text/plain", "Bearer", "Bearer \u00e9", "-1", "0", "\u00ff", "application/json; charset=utf-16",
                         "bytes=0-", "Basic QQ=="])
    if name != "Content-Length":
        headers[name] = value
    return headers


def ask(service, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_no_mutated_request_hurts(start):
    service = start("--context", 256)
    before = service.complete().choices[0].text
    draw = random.Random(SEED)
    statuses = {}
    for number in range(REQUESTS):
        path, body = draw.choice(BODIES)
        body = json.loads(json.dumps(body).replace("MODEL", service.model))
        kind = number % 3
        if kind == 0:
            for _ in range(draw.randrange(1, 4)):
                body = mutated_value(body, draw) or {"a": 1}
        data = json.dumps(body).encode()
        if kind == 1:
            data = mutated_bytes(data, draw)
        headers = mutated_headers(len(data), draw) if kind == 2 else {
            "Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Content-Length": str(len(data))}
        status, answer = ask(service, path, data, headers)
        statuses[status] = statuses.get(status, 0) + 1
        said = f"request {number} to {path}: {data[:600]!r} {headers} got {status}: {answer[:600]!r}"
        assert status == 200 or 400 <= status < 500, said
        if status != 200:
            assert json.loads(answer)["error"]["message"], said
    print(f"\n{REQUESTS} mutated requests answered: {dict(sorted(statuses.items()))}")
    assert statuses[200] > REQUESTS / 20 and statuses[400] > REQUESTS / 20
    service.wait_metric("tureen_requests_running", 0)
    assert "panicked" not in service.said()
    assert service.complete().choices[0].text == before
