"""Tensors of the Open Inference protocol, in JSON and in the binary extension, to arrays and back.

In JSON a tensor's data are a flat list in row-major order, or nested lists. In the binary extension they follow the
JSON part of the body, whose length the header Inference-Header-Content-Length gives, little-endian and in the order
of the inputs.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from serve.up.body import check_keys, parse, take
from serve.up.errors import Problem

HEADER = "Inference-Header-Content-Length"

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(bool),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Spec = Mapping[str, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class Inference:
    rows: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    binary: frozenset[str]
    """Outputs to answer in binary."""
    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def read(raw: bytes, *, header: str | None, inputs: Spec, outputs: Collection[str]) -> Inference:
    """A request's tensors, checked against what the model takes but for the number of rows."""
    head, tail = _split(raw, header=header)
    # numpy would take true for 1; who sends no such word need not be looked through.
    suspicious = b"true" in head or b"false" in head
    body = parse(head)
    check_keys(body, known=("id", "inputs", "outputs", "parameters"))
    parameters = take(body, "parameters", dict, default={})
    rows: dict[str, np.ndarray] = {}
    at = 0
    for i, tensor in enumerate(take(body, "inputs", list)):
        where = f"inputs[{i}]"
        if not isinstance(tensor, dict):
            raise Problem(400, f"{where} is not an object", field=where)
        check_keys(tensor, known=("name", "shape", "datatype", "data", "parameters"), where=where)
        name = _of(tensor, "name", str, where=where)
        if name in rows:
            raise Problem(400, f"{where} gives input {name!r} a second time", field=f"{where}.name")
        if name not in inputs:
            known = ", ".join(inputs)
            raise Problem(400, f"{where}: the model has no input {name!r}; it takes {known}", field=f"{where}.name")
        shape, dtype = _declared(tensor, wanted=inputs[name], where=where)
        size = take(take(tensor, "parameters", dict, default={}), "binary_data_size", int, default=None)
        if size is None:
            rows[name] = _from_json(_of(tensor, "data", list, where=where), shape, dtype, where, suspicious)
        else:
            rows[name] = _from_bytes(tail[at : at + size], shape, dtype, where, size)
            at += size
        _finite(rows[name], name=name, where=where)
    missing = [name for name in inputs if name not in rows]
    if missing:
        raise Problem(400, f"the request lacks input {missing[0]!r}", field="inputs")
    if at != len(tail):
        raise Problem(400, f"{len(tail) - at} bytes follow the last binary tensor; is {HEADER} right?", field="inputs")
    wanted, binary = _wanted(body, outputs=outputs, every=bool(parameters.get("binary_data_output", False)))
    return Inference(rows, wanted, binary, take(body, "id", str, default=None), parameters)


def write(
    outputs: Mapping[str, np.ndarray], *, asked: Inference, name: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer."""
    tensors, tail = [], []
    for output in asked.outputs:
        array = outputs[output]
        tensor: dict[str, Any] = {"name": output, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
        if output in asked.binary:
            tail.append(np.ascontiguousarray(array).tobytes())
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = array.astype(np.float32).reshape(-1).tolist() if _wide(array) else array.ravel().tolist()
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": tensors}
    if asked.id is not None:
        answer["id"] = asked.id
    head = json.dumps(answer, allow_nan=False).encode()
    if not tail:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *tail]), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def _split(raw: bytes, *, header: str | None) -> tuple[bytes, memoryview]:
    if header is None:
        return raw, memoryview(b"")
    if not header.isascii() or not header.isdigit() or int(header) > len(raw):
        raise Problem(400, f"{HEADER} is {header!r}, the body has {len(raw)} bytes", field=HEADER)
    return raw[: int(header)], memoryview(raw)[int(header) :]


def _declared(tensor: dict[str, Any], *, wanted: tuple[tuple[int, ...], np.dtype], where: str) -> Any:
    inner, dtype = wanted
    shape, datatype = _of(tensor, "shape", list, where=where), _of(tensor, "datatype", str, where=where)
    if datatype != NAMES[dtype]:
        reason = f"{where} ({tensor['name']}) is {datatype}, the model takes {NAMES[dtype]}"
        raise Problem(400, reason, field=f"{where}.datatype")
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 31 for n in shape)
    if not whole or tuple(shape[1:]) != inner or len(shape) != len(inner) + 1:
        takes = ", ".join(("rows", *map(str, inner)))
        reason = f"{where} ({tensor['name']}) has shape {shape}, the model takes [{takes}]"
        raise Problem(400, reason, field=f"{where}.shape")
    return tuple(shape), dtype


def _from_json(data: list, shape: tuple[int, ...], dtype: np.dtype, where: str, suspicious: bool) -> np.ndarray:
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise Problem(400, f"{where}.data is ragged or holds no numbers", field=f"{where}.data") from error
    kinds = {"b": "b", "i": "iu", "u": "iu"}.get(dtype.kind, "iuf")
    if array.size and (array.dtype.kind not in kinds or (suspicious and dtype.kind != "b" and _holds_bool(data))):
        reason = f"{where}.data does not hold values of {NAMES[dtype]} alone"
        raise Problem(400, reason, field=f"{where}.data")
    if array.ndim != 1 and array.shape != shape:
        reason = f"{where}.data is nested as {list(array.shape)}, its shape says {list(shape)}"
        raise Problem(400, reason, field=f"{where}.data")
    if array.size != int(np.prod(shape)):
        reason = f"{where}.data has {array.size} values, its shape {list(shape)} needs {int(np.prod(shape))}"
        raise Problem(400, reason, field=f"{where}.data")
    if dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise Problem(400, f"{where}.data exceeds {NAMES[dtype]}", field=f"{where}.data")
    with np.errstate(over="ignore"):  # what becomes infinite is refused by name
        return array.astype(dtype).reshape(shape)


def _from_bytes(data: memoryview, shape: tuple[int, ...], dtype: np.dtype, where: str, size: int) -> np.ndarray:
    due = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size != due or len(data) != size:
        reason = f"{where}: binary_data_size is {size}, {len(data)} bytes came, shape and datatype need {due}"
        raise Problem(400, reason, field=f"{where}.parameters.binary_data_size")
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise Problem(400, f"{where} holds bytes other than 0 and 1", field=where)
    return np.frombuffer(data, dtype).reshape(shape)


def _finite(array: np.ndarray, *, name: str, where: str) -> None:
    if _floating(array) and not np.isfinite(array).all():
        raise Problem(400, f"{where} ({name}) holds NaN or infinity", field=f"{where}.data")


def _wanted(body: dict[str, Any], *, outputs: Collection[str], every: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    asked = take(body, "outputs", list, default=None)
    if asked is None:
        return tuple(outputs), frozenset(outputs if every else ())
    names, binary = [], set()
    for i, output in enumerate(asked):
        where = f"outputs[{i}]"
        if not isinstance(output, dict) or output.get("name") not in outputs:
            raise Problem(400, f"{where} names no output; the model has {', '.join(outputs)}", field=f"{where}.name")
        check_keys(output, known=("name", "parameters"), where=where)
        names.append(output["name"])
        if take(take(output, "parameters", dict, default={}), "binary_data", bool, default=every):
            binary.add(output["name"])
    return tuple(dict.fromkeys(names)), frozenset(binary)


def _of(tensor: dict[str, Any], name: str, kind: type, *, where: str) -> Any:
    try:
        return take(tensor, name, kind)
    except Problem as problem:
        raise Problem(400, f"{where}: {problem.message}", field=f"{where}.{name}") from problem


def _holds_bool(data: Any) -> bool:
    return any(_holds_bool(v) for v in data) if isinstance(data, list) else isinstance(data, bool)


def _floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == DTYPES["BF16"]


def _wide(array: np.ndarray) -> bool:
    """Whether JSON has to say it in a wider type: numpy's own cast of bfloat16 gives objects."""
    return array.dtype == DTYPES["BF16"]
