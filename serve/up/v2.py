"""The Open Inference protocol (KServe V2) over HTTP, for the tower."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from serve.up import tensors
from serve.up.body import read_body
from serve.up.describe import API, operation
from serve.up.errors import Problem
from serve.up.house import House
from serve.up.serving import Serving, finite


def routes(house: House) -> APIRouter:
    router = APIRouter(tags=["Open Inference protocol"])

    @router.get("/v2", **operation("Server", answer="ServerMetadata"))
    async def server() -> Response:
        about = {"name": "adloom", "version": API, "extensions": ["binary_tensor_data"]}
        return JSONResponse(about)

    @router.get("/v2/health/live", **operation("Whether the process lives", answer="Live"))
    async def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/v2/health/ready", **operation("Whether requests are welcome", 503, answer="Ready"))
    async def ready() -> Response:
        house.check_ready()
        return JSONResponse({"ready": True})

    model = operation("The model's inputs and outputs", 404, answer="ModelMetadata")

    @router.get("/v2/models/{name}", **model)
    @router.get("/v2/models/{name}/versions/{version}", **model)
    async def metadata(request: Request) -> Response:
        return JSONResponse(_metadata(_found(house, request)))

    model_ready = operation("Whether the model is ready", 404, 503, answer="ModelReady")

    @router.get("/v2/models/{name}/ready", **model_ready)
    @router.get("/v2/models/{name}/versions/{version}/ready", **model_ready)
    async def ready_model(request: Request) -> Response:
        serving = _found(house, request)
        house.check_ready()
        return JSONResponse({"name": serving.name, "ready": True})

    infer_model = operation(
        "Outputs of encoded rows", 400, 404, 408, 413, 422, 429, 503, 504, body="Infer", answer="Inferred"
    )

    @router.post("/v2/models/{name}/infer", **infer_model)
    @router.post("/v2/models/{name}/versions/{version}/infer", **infer_model)
    async def infer(request: Request) -> Response:
        return await _infer(house, request)

    return router


async def _infer(house: House, request: Request) -> Response:
    serving, limits = _found(house, request), house.config.limits
    raw = await read_body(request, limits=limits)
    artifact = serving.tower()
    header = request.headers.get(tensors.HEADER)
    asked = tensors.read(raw, header=header, inputs=artifact.inputs, outputs=tuple(artifact.outputs))
    once = serving.shared if asked.parameters.get("request") is True else frozenset()
    if asked.parameters.get("request") is True and not once:
        raise Problem(400, "the model has no program for requests; export with --request", field="parameters.request")
    rows = _rows(asked.rows, once=once)
    house.check_rows(rows, what="rows")
    artifact.check_ids(asked.rows)
    if once:
        outputs = await house.alone(lambda: artifact.request(asked.rows), count=rows)
    else:
        outputs = await house.together(artifact, asked.rows, count=rows)
    finite({name: outputs[name] for name in asked.outputs})
    body, headers = tensors.write(outputs, asked=asked, name=serving.name, version=artifact.version)
    return Response(body, headers=headers)


def _found(house: House, request: Request) -> Serving:
    serving = house.serving
    artifact = serving.tower()
    name, version = request.path_params["name"], request.path_params.get("version", artifact.version)
    if name != serving.name:
        raise Problem(404, f"no model {name!r} is served here; there is {serving.name!r}")
    if version != artifact.version:
        raise Problem(
            404, f"version {version!r} is not served; {artifact.version!r} is, and /v2/models/{name} follows it"
        )
    return serving


def _rows(arrays: Any, *, once: frozenset[str]) -> int:
    """How many rows the request has: of every input but the user's, of which there is one."""
    lengths = {name: len(array) for name, array in arrays.items()}
    wrong = [name for name in once if lengths[name] != 1]
    if wrong:
        raise Problem(
            400, f"input {wrong[0]!r} is the user's and has one row, {lengths[wrong[0]]} came", field="inputs"
        )
    many = {n: length for n, length in lengths.items() if n not in once}
    if len(set(many.values())) > 1:
        raise Problem(400, f"inputs differ in their number of rows: {many}", field="inputs")
    rows = next(iter(many.values()))
    if not rows:
        raise Problem(400, "the request has no rows", field="inputs")
    return rows


def _metadata(serving: Serving) -> dict[str, Any]:
    artifact = serving.tower()

    def described(spec: tensors.Spec) -> list[dict[str, Any]]:
        return [
            {"name": n, "datatype": tensors.NAMES[dtype], "shape": [-1, *shape]} for n, (shape, dtype) in spec.items()
        ]

    return {
        "name": serving.name,
        "versions": [artifact.version],
        "platform": "jax_stablehlo",
        "inputs": described(artifact.inputs),
        "outputs": described(artifact.outputs),
        "parameters": {"request_inputs": sorted(serving.shared)},
    }
