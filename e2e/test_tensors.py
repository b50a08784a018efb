"""ONNX models through tritonclient (REST and gRPC) and curl in TensorFlow Serving's form, against onnxruntime's results."""

import json
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import openai
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from service import KEY, MODEL, Service, free_port
from test_mutations import mutated_bytes, mutated_value

FIXTURES = Path(__file__).parent.parent / "fixtures/onnx"
GOLDEN = json.loads((FIXTURES / "golden.json").read_text())["models"]
NAMES = ["article", "types", "two_inputs", "classifier", "image", "fixed", "scalar", "coupled"]
NUMPY = {"bool": bool, "uint8": "u1", "int8": "i1", "int32": "i4", "int64": "i8", "float16": "f2", "float": "f4", "double": "f8"}
TRITON = {"bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64", "float16": "FP16",
          "float": "FP32", "double": "FP64"}
# The client writes into what it is given, so each call gets a copy.
HEADERS = {"authorization": f"Bearer {KEY}"}
MUTATIONS = 2000


@pytest.fixture(scope="module")
def service():
    grpc = free_port()
    models = [MODEL, *[f"{name}={FIXTURES}/{name}.onnx" for name in NAMES]]
    running = Service("--context", 256, "--grpc-listen", f"127.0.0.1:{grpc}", models=models)
    running.grpc_port = grpc
    yield running
    alive = running.process.poll() is None
    said = running.said()
    running.stop()
    assert alive and "panicked" not in said, said[-4000:]


@pytest.fixture
def http(service):
    # Scripts of tritonclient pass headers call by call.
    return triton_http.InferenceServerClient(f"127.0.0.1:{service.port}")


@pytest.fixture
def grpc(service):
    return triton_grpc.InferenceServerClient(f"127.0.0.1:{service.grpc_port}")


def array(tensor):
    return numpy.array(tensor["data"], NUMPY[tensor["type"]]).reshape(tensor["shape"])


def triton_inputs(kind, name, **options):
    inputs = []
    for input_name, tensor in GOLDEN[name]["inputs"].items():
        one = kind.InferInput(input_name, tensor["shape"], TRITON[tensor["type"]])
        one.set_data_from_numpy(array(tensor), **options)
        inputs.append(one)
    return inputs


def check(name, found_of):
    for output, tensor in GOLDEN[name]["outputs"].items():
        found = found_of(output)
        assert found.dtype == numpy.dtype(NUMPY[tensor["type"]]) and list(found.shape) == tensor["shape"], output
        numpy.testing.assert_allclose(found.astype("f8"), array(tensor).astype("f8"), rtol=1e-5, atol=1e-5, err_msg=output)


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_triton_over_rest(http, name, binary_in, binary_out):
    if name == "types" and not (binary_in and binary_out):
        pytest.skip("FP16 goes in binary form alone in this client")
    outputs = [triton_http.InferRequestedOutput(output, binary_data=binary_out) for output in GOLDEN[name]["outputs"]]
    answer = http.infer(name, triton_inputs(triton_http, name, binary_data=binary_in), outputs=outputs, request_id="7",
                        headers=dict(HEADERS))
    check(name, answer.as_numpy)
    assert answer.get_response()["id"] == "7" and answer.get_response()["model_version"] == "1"


@pytest.mark.parametrize("name", NAMES)
def test_triton_over_grpc(grpc, name):
    answer = grpc.infer(name, triton_inputs(triton_grpc, name), request_id="7", headers=dict(HEADERS))
    check(name, answer.as_numpy)
    assert answer.get_response().id == "7"


def test_grpc_takes_typed_contents_and_answers_with_them(service):
    import grpc as library
    with library.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in ["article", "classifier"]:
            request = service_pb2.ModelInferRequest(model_name=name)
            for input_name, tensor in GOLDEN[name]["inputs"].items():
                one = request.inputs.add(name=input_name, datatype=TRITON[tensor["type"]], shape=tensor["shape"])
                field = one.contents.fp32_contents if tensor["type"] == "float" else one.contents.int64_contents
                field.extend(tensor["data"])
            answer = stub.ModelInfer(request, metadata=[("authorization", f"Bearer {KEY}")])
            for output in answer.outputs:
                expected = GOLDEN[name]["outputs"][output.name]
                found = output.contents.fp32_contents if expected["type"] == "float" else output.contents.int64_contents
                assert list(output.shape) == expected["shape"]
                numpy.testing.assert_allclose(list(found), expected["data"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_health_and_metadata(request, kind):
    client = request.getfixturevalue(kind)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("article", headers=dict(HEADERS)) and client.is_model_ready("article", "1", headers=dict(HEADERS))
    options = {"headers": dict(HEADERS)} | ({"as_json": True} if kind == "grpc" else {})
    server = client.get_server_metadata(**options)
    assert server["name"] == "tureen" and "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("article", **options)
    assert model["versions"] == ["1"] and model["platform"] == "rten_onnx"
    assert [int(length) for length in model["inputs"][0]["shape"]] == [-1, 100]
    assert model["inputs"][0]["datatype"] == "FP32" and model["outputs"][0]["name"] == "probabilities"


def test_a_subset_of_outputs_in_the_order_asked_for(http, grpc):
    for client, kind in [(http, triton_http), (grpc, triton_grpc)]:
        outputs = [kind.InferRequestedOutput("scores")]
        answer = client.infer("classifier", triton_inputs(kind, "classifier"), outputs=outputs, headers=dict(HEADERS))
        assert answer.as_numpy("label") is None
        numpy.testing.assert_allclose(answer.as_numpy("scores"), array(GOLDEN["classifier"]["outputs"]["scores"]), 1e-5, 1e-6)


def wrong(kind, shape=(1, 100), datatype="FP32", name="x"):
    one = kind.InferInput(name, shape, datatype)
    one.set_data_from_numpy(numpy.zeros(shape, {"FP32": "f4", "INT64": "i8"}[datatype]))
    return [one]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_errors_say_what_was_expected_and_what_came(request, kind):
    client = request.getfixturevalue(kind)
    module = {"http": triton_http, "grpc": triton_grpc}[kind]

    def refused(expected, codes, model="article", inputs=None, headers=HEADERS, **options):
        with pytest.raises(InferenceServerException) as raised:
            client.infer(model, inputs or wrong(module), headers=headers and dict(headers), **options)
        assert expected in raised.value.message(), raised.value.message()
        assert str(raised.value.status()) in codes, raised.value.status()

    invalid, missing = ("400", "StatusCode.INVALID_ARGUMENT"), ("404", "StatusCode.NOT_FOUND")
    refused('the model "none" is not served here', missing, model="none")
    refused('has no version "3"; it has "1"', missing, model_version="3")
    refused("the input \"x\" has the shape [1, 99]; expected [batch, 100]", invalid, inputs=wrong(module, (1, 99)))
    refused('has the datatype "INT64"; expected "FP32"', invalid, inputs=wrong(module, datatype="INT64"))
    refused('the model has no input "y"; it takes x float[batch, 100]', invalid, inputs=wrong(module, name="y"))
    refused('the model has no output "y"', invalid, outputs=[module.InferRequestedOutput("y")])
    refused("generates text and takes no tensors", invalid, model=Path(MODEL).stem if "/" in MODEL else MODEL)
    refused("key", ("401", "StatusCode.UNAUTHENTICATED"), headers=None)
    refused("key", ("401", "StatusCode.UNAUTHENTICATED"), headers={"authorization": "Bearer wrong"})


def test_text_is_not_asked_of_tensors(service):
    with pytest.raises(openai.BadRequestError) as raised:
        service.client.chat.completions.create(model="article", messages=[{"role": "user", "content": "Hi"}])
    assert "takes tensors and generates no text" in str(raised.value) and raised.value.code == "model_takes_tensors"
    ids = [model.id for model in service.client.models.list().data]
    assert ids[1:] == NAMES and service.client.models.retrieve("article").id == "article"


def curl(service, path, body=None, key=KEY):
    """As TensorFlow Serving's pages call it: `-d` without a content type."""
    command = ["curl", "-s", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {key}"]
    command += ["-d", json.dumps(body)] if body is not None else []
    text, _, status = subprocess.check_output([*command, service.url + path], text=True).rpartition("\n")
    return int(status), json.loads(text)


def nested(name, side):
    return {tensor: array(value).tolist() for tensor, value in GOLDEN[name][side].items()}


def test_tensorflow_predicts_rows_and_columns(service):
    [x], [expected] = nested("article", "inputs").values(), nested("article", "outputs").values()
    for path in ["/v1/models/article:predict", "/v1/models/article/versions/1:predict"]:
        status, answer = curl(service, path, {"signature_name": "serving_default", "instances": x})
        assert status == 200
        numpy.testing.assert_allclose(answer["predictions"], expected, 1e-5, 1e-6)
    for inputs in [x, {"x": x}]:
        status, answer = curl(service, "/v1/models/article:predict", {"inputs": inputs})
        numpy.testing.assert_allclose(answer["outputs"], expected, 1e-5, 1e-6)
    a, b = nested("two_inputs", "inputs").values()
    expected = nested("two_inputs", "outputs")
    rows = [{"b": row_b, "a": row_a} for row_a, row_b in zip(a, b)]
    status, answer = curl(service, "/v1/models/two_inputs:predict", {"instances": rows})
    assert status == 200
    for row, found in enumerate(answer["predictions"]):
        numpy.testing.assert_allclose(found["sum"], expected["sum"][row], 1e-5)
        numpy.testing.assert_allclose(found["largest"], expected["largest"][row], 1e-5)
    status, answer = curl(service, "/v1/models/two_inputs:predict", {"inputs": {"a": a, "b": b}})
    numpy.testing.assert_allclose(answer["outputs"]["sum"], expected["sum"], 1e-5)
    status, answer = curl(service, "/v1/models/types:predict", {"instances": [
        {**{name: row[0] for name, row in nested("types", "inputs").items()}, "uint8_in": {"b64": "AP8="}}]})
    assert status == 200 and answer["predictions"][0]["uint8_out"] == [0, 255]


def test_tensorflow_classifies_and_regresses(service):
    [x], [expected] = nested("article", "inputs").values(), nested("article", "outputs").values()
    status, answer = curl(service, "/v1/models/article:classify", {"examples": [{"x": row} for row in x]})
    assert status == 200 and [label for label, _ in answer["result"][0]] == [str(label) for label in range(10)]
    numpy.testing.assert_allclose([[score for _, score in row] for row in answer["result"]], expected, 1e-5, 1e-6)
    a, b = nested("two_inputs", "inputs").values()
    body = {"context": {"b": b[0]}, "examples": [{"a": row} for row in a]}
    status, answer = curl(service, "/v1/models/two_inputs:regress", body)
    assert status == 200
    numpy.testing.assert_allclose(answer["result"], nested("two_inputs", "outputs")["largest"], 1e-5)


def test_tensorflow_status_metadata_and_errors(service):
    for path in ["/v1/models/article", "/v1/models/article/versions/1"]:
        status, answer = curl(service, path)
        assert status == 200 and answer["model_version_status"][0]["state"] == "AVAILABLE"
    status, answer = curl(service, "/v1/models/article/metadata")
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT" and answer["model_spec"]["name"] == "article"
    assert [dim["size"] for dim in signature["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "100"]

    def refused(status, expected, path, body, key=KEY):
        found, answer = curl(service, path, body, key)
        assert found == status and isinstance(answer["error"], str) and expected in answer["error"], answer

    article = "/v1/models/article:predict"
    refused(400, "expected [batch, 100]", article, {"instances": [[1, 2]]})
    refused(400, "arrays beside each other have 2 and 1 items", article, {"instances": [[1, 2], [3]]})
    refused(400, '"instances" or "inputs" is required', article, {})
    refused(400, 'no signature "other"', article, {"signature_name": "other", "instances": []})
    refused(404, "not served here", "/v1/models/none:predict", {"instances": []})
    refused(404, 'no version "2"', "/v1/models/article/versions/2:predict", {"instances": []})
    refused(404, "ends in :predict", "/v1/models/article:train", {"instances": []})
    refused(401, "key", article, {"instances": []}, key="wrong")


def test_many_callers_get_their_own_rows(service):
    """Calls are batched; each gets its own result."""
    random_x = numpy.random.default_rng(1).standard_normal((256, 100)).astype("f4")

    def ask(row):
        body = {"inputs": [{"name": "x", "shape": [1, 100], "datatype": "FP32", "data": random_x[row].tolist()}]}
        status, _, answer = service.post("/v2/models/article/infer", body)
        assert status == 200, answer
        return json.loads(answer)["outputs"][0]["data"]

    alone = [ask(row) for row in range(len(random_x))]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, range(len(random_x))))
    numpy.testing.assert_allclose(together, alone, 1e-5, 1e-6)
    assert service.metric("tureen_tensor_rows_total") >= 2 * len(random_x)
    assert service.metric("tureen_tensor_runs_total") < service.metric("tureen_tensor_calls_total")


def test_a_call_ends_when_its_time_is_over(start):
    port = free_port()
    # A call waits longer for others than a request may take.
    slow = start("--request-max", 1, "--batch-wait-us", 10_000_000, "--grpc-listen", f"127.0.0.1:{port}",
                 models=[f"article={FIXTURES}/article.onnx"])
    rest = triton_http.InferenceServerClient(f"127.0.0.1:{slow.port}")
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{port}")
    for client, module, code in [(rest, triton_http, "504"), (grpc, triton_grpc, "StatusCode.DEADLINE_EXCEEDED")]:
        with pytest.raises(InferenceServerException) as raised:
            client.infer("article", triton_inputs(module, "article"), headers=dict(HEADERS))
        assert str(raised.value.status()) == code and "no answer within 1 s" in raised.value.message()
    [x] = nested("article", "inputs").values()
    status, answer = curl(slow, "/v1/models/article:predict", {"instances": x})
    assert status == 504 and "no answer within 1 s" in answer["error"]


def test_no_mutated_request_hurts(service):
    [x] = nested("article", "inputs").values()
    bodies = [
        ("/v2/models/article/infer", {"id": "1", "parameters": {"binary_data_output": False}, "inputs": [
            {"name": "x", "shape": [3, 100], "datatype": "FP32", "parameters": {}, "data": x}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}),
        ("/v2/models/classifier/infer", {"inputs": [{"name": "ids", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}]}),
        ("/v1/models/classifier:predict", {"signature_name": "serving_default", "instances": [[1, 2], [3, 4]]}),
        ("/v1/models/types:predict", {"inputs": nested("types", "inputs")}),
        ("/v1/models/two_inputs:regress", {"context": {"b": [1, 2, 3]}, "examples": [{"a": [1, 2, 3]}]}),
    ]
    draw = random.Random(20240608)
    statuses = {}
    for number in range(MUTATIONS):
        path, body = draw.choice(bodies)
        data = json.dumps(mutated_value(body, draw) or {}).encode() if number % 2 else mutated_bytes(json.dumps(body).encode(), draw)
        extra = {"Inference-Header-Content-Length": str(draw.randrange(len(data) + 9))} if number % 7 == 0 else {}
        status, _, answer = service.post(path, data, extra)
        statuses[status] = statuses.get(status, 0) + 1
        assert status == 200 or 400 <= status < 500, (path, data[:500], status, answer[:500])
        if status != 200:
            assert isinstance(json.loads(answer)["error"], str)
    print(f"\n{MUTATIONS} mutated requests answered: {dict(sorted(statuses.items()))}")
    assert statuses[200] > MUTATIONS / 50 and statuses[400] > MUTATIONS / 20


def test_pulled_shown_and_refused_by_name(tmp_path):
    def tureen(*arguments, succeeds=True):
        done = subprocess.run([os.environ["TUREEN"], *arguments, "--models", str(tmp_path)], capture_output=True, text=True,
                              timeout=60)
        assert (done.returncode == 0) == succeeds, done.stderr
        return done.stdout + done.stderr

    assert "tureen serve net" in tureen("pull", str(FIXTURES / "article.onnx"), "--as", "net")
    shown = tureen("show", "net")
    assert "x float[batch, 100]" in shown and "probabilities float[batch, 10]" in shown and "14.2K" in shown
    assert json.loads(tureen("show", "net", "--json"))["inputs"] == [{"name": "x", "type": "float", "shape": ["batch", 100]}]
    assert "takes tensors and generates no text" in tureen("run", "net", "Hi", succeeds=False)
