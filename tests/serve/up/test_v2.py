"""The Open Inference protocol: scores to the bit, and what it refuses."""

import json

import numpy as np
import pytest

from serve.artifact import load
from tests.serve.up.conftest import ask, rows_of, tensors

INFER = "/v2/models/tower/infer"


def infer(app, body, **options):
    return ask(app, "POST", INFER, json=body, **options)


def values(answer):
    datatypes = {"FP32": np.float32}
    return {t["name"]: np.array(t["data"], datatypes[t["datatype"]]).reshape(t["shape"]) for t in answer["outputs"]}


@pytest.mark.parametrize("rows", [1, 7, 32, 50])
def test_scores_equal_the_artefacts_to_the_bit(app, exported, rows):
    batch = rows_of(rows, seed=rows)
    answer = infer(app, {"id": "a", "inputs": tensors(batch)})
    assert answer.status_code == 200, answer.text
    wanted = load(exported, max_batch=32)(batch)
    found = values(answer.json())
    assert found.keys() == wanted.keys() and answer.json()["id"] == "a"
    for name, value in wanted.items():
        assert found[name].tobytes() == value.tobytes()


def test_nested_data_and_named_outputs(app, exported):
    batch = rows_of(4)
    inputs = [{**t, "data": batch[t["name"]].tolist()} for t in tensors(batch)]
    answer = infer(app, {"inputs": inputs, "outputs": [{"name": "score"}]}).json()
    assert [t["name"] for t in answer["outputs"]] == ["score"]
    assert values(answer)["score"].tobytes() == load(exported)(batch)["score"].tobytes()
    assert "id" not in answer


def binary(batch, *, order=None, **parameters):
    order = order or list(batch)
    inputs = []
    for tensor in tensors(batch):
        del tensor["data"]
        inputs.append({**tensor, "parameters": {"binary_data_size": batch[tensor["name"]].nbytes}})
    head = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    return head, head + b"".join(batch[name].tobytes() for name in order)


def test_binary_tensors_both_ways(app, exported):
    batch = rows_of(5)
    head, body = binary(batch, binary_data_output=True)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answer = ask(app, "POST", INFER, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["Inference-Header-Content-Length"])
    described, tail = json.loads(answer.content[:length]), answer.content[length:]
    wanted = load(exported)(batch)
    for tensor in described["outputs"]:
        size = tensor["parameters"]["binary_data_size"]
        assert tail[:size] == wanted[tensor["name"]].tobytes()
        tail = tail[size:]
    assert not tail


@pytest.mark.parametrize(
    ("length", "cut", "reason"),
    [
        ("9999999", 0, "the body has"),
        ("-4", 0, "Inference-Header-Content-Length is '-4'"),
        (None, 4, "bytes came, shape and datatype need"),
        (None, -4, "4 bytes follow the last binary tensor"),
    ],
)
def test_binary_lengths_that_do_not_fit(app, length, cut, reason):
    head, body = binary(rows_of(5))
    body = body[:-cut] if cut > 0 else body + bytes(-cut)
    answer = ask(
        app, "POST", INFER, content=body, headers={"Inference-Header-Content-Length": length or str(len(head))}
    )
    assert answer.status_code == 400 and reason in answer.json()["error"], answer.text


def test_a_request_holds_the_user_once(app, exported):
    batch = rows_of(6)
    once = {n: a[:1] if n in ("history", "history/length", "age") else a for n, a in batch.items()}
    answer = infer(app, {"inputs": tensors(once), "parameters": {"request": True}})
    assert values(answer.json())["score"].tobytes() == load(exported).request(once)["score"].tobytes()
    refused = infer(app, {"inputs": tensors(batch), "parameters": {"request": True}})
    assert refused.status_code == 400 and "is the user's and has one row, 6 came" in refused.json()["error"]


def spoilt(which, **changes):
    return {"inputs": [{**t, **(changes if t["name"] == which else {})} for t in tensors(rows_of(3))]}


NAN = float("nan")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (spoilt("item", datatype="INT64"), "inputs[0].datatype", "(item) is INT64, the model takes INT32"),
        (spoilt("item", shape=[3, 1]), "inputs[0].shape", "has shape [3, 1], the model takes [rows]"),
        (spoilt("history", shape=[3, 4]), "inputs[2].shape", "the model takes [rows, 3]"),
        (spoilt("item", shape=[True]), "inputs[0].shape", "has shape [True]"),
        (spoilt("item", data=[1, 2]), "inputs[0].data", "has 2 values, its shape [3] needs 3"),
        (spoilt("item", data=[1, 2, 3.5]), "inputs[0].data", "does not hold values of INT32 alone"),
        (spoilt("item", data=[1, True, 3]), "inputs[0].data", "does not hold values of INT32 alone"),
        (spoilt("item", data=[1, 2, "x"]), "inputs[0].data", "does not hold values of INT32 alone"),
        (spoilt("item", data=[1, 2, None]), "inputs[0].data", "does not hold values of INT32 alone"),
        (spoilt("item", data=[1, 2, 1 << 40]), "inputs[0].data", "exceeds INT32"),
        (spoilt("item", data=[1, 2, 1 << 90]), "inputs[0].data", "does not hold values of INT32 alone"),
        (spoilt("history", data=[[1, 2, 3], [1], [2]]), "inputs[2].data", "is ragged"),
        (spoilt("history", data=[[1] * 9]), "inputs[2].data", "nested as [1, 9]"),
        (spoilt("item", data=[1, 2, 20]), None, "'item' holds ids 1..20, the model has rows 0..19"),
        (spoilt("item", data=[1, -2, 2]), None, "'item' holds ids -2..2"),
        (spoilt("price", data=[1, 2, 1e300]), "inputs[1].data", "(price) holds NaN or infinity"),
        (spoilt("price", name="prize"), "inputs[1].name", "the model has no input 'prize'"),
        (spoilt("price", name="item"), "inputs[1].name", "gives input 'item' a second time"),
        (spoilt("price", dataa=[]), "dataa", "did you mean 'data'?"),
        (spoilt("price", data=7), "inputs[1].data", "data is a JSON number, expected an array"),
        ({"inputs": tensors(rows_of(3))[1:]}, "inputs", "lacks input 'item'"),
        ({"inputs": tensors(rows_of(0))}, "inputs", "the request has no rows"),
        ({"inputs": [4]}, "inputs[0]", "inputs[0] is not an object"),
        ({"inputs": {}}, "inputs", "inputs is a JSON object, expected an array"),
        ({}, "inputs", "the body lacks the field 'inputs'"),
        ({"inputs": tensors(rows_of(3)), "outputs": [{"name": "scores"}]}, "outputs[0].name", "names no output"),
        ({"inputs": tensors(rows_of(3))[:4] + tensors(rows_of(2))[4:]}, "inputs", "differ in their number of rows"),
    ],
)
def test_what_is_wrong_is_named(app, body, field, reason):
    answer = infer(app, body)
    found = answer.json()
    assert answer.status_code == 400, answer.text
    assert reason in found["error"] and found.get("field") == field
    assert found["status"] == 400 and found["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the body is not JSON"),
        (b'{"inputs": [', "the body is not JSON"),
        (b"[1]", "the body is a JSON array, an object was expected"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", "the body is not JSON"),
    ],
    ids=["empty", "cut", "array", "no UTF-8", "deep"],
)
def test_malformed_bodies(app, content, reason):
    answer = ask(app, "POST", INFER, content=content)
    assert answer.status_code == 400 and reason in answer.json()["error"]


def test_nan_is_named_in_json_and_in_binary(app):
    batch = rows_of(3)
    text = json.dumps({"inputs": tensors({**batch, "price": np.array([1, NAN, 2], np.float32)})})
    assert "NaN" in text
    answer = ask(app, "POST", INFER, content=text)
    assert answer.status_code == 400 and "(price) holds NaN" in answer.json()["error"]
    head, body = binary({**batch, "age": np.array([1, np.inf, 2], np.float32)})
    answer = ask(app, "POST", INFER, content=body, headers={"Inference-Header-Content-Length": str(len(head))})
    assert answer.status_code == 400 and "(age) holds NaN" in answer.json()["error"]


def test_finite_inputs_that_overflow_are_no_fault_of_the_server(app):
    batch = rows_of(2)
    answer = infer(app, {"inputs": tensors({**batch, "price": np.full(2, 3e38, np.float32)})})
    assert answer.status_code in (200, 422)
    far = {**batch, "price": np.array([3e38, -3e38], np.float32), "age": np.array([3e38, 3e38], np.float32)}
    answer = infer(app, {"inputs": tensors(far), "outputs": [{"name": "pair"}]})
    assert answer.status_code in (200, 422)


def test_too_many_rows(app):
    answer = infer(app, {"inputs": tensors(rows_of(5000))})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("5,000 rows in one request, at most 4,096 are taken")


def test_metadata_names_inputs_as_the_protocol_does(app, exported):
    version = load(exported).version
    for path in ("/v2/models/tower", f"/v2/models/tower/versions/{version}"):
        about = ask(app, "GET", path).json()
        assert about["versions"] == [version] and about["platform"] == "jax_stablehlo"
        inputs = {t["name"]: (t["datatype"], t["shape"]) for t in about["inputs"]}
        assert inputs["history"] == ("INT32", [-1, 3]) and inputs["price"] == ("FP32", [-1])
        assert {t["name"]: t["shape"] for t in about["outputs"]} == {"score": [-1], "pair": [-1, 2]}
    assert ask(app, "GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(app, "GET", "/v2/health/ready").json() == {"ready": True}
    assert ask(app, "GET", "/v2/models/tower/ready").json() == {"name": "tower", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/tower/versions/1", "/v2/models/other/infer"])
def test_unknown_models_and_versions(app, path):
    answer = ask(app, "POST" if path.endswith("infer") else "GET", path)
    assert answer.status_code == 404 and "served" in answer.json()["error"]
