"""A tower in four lines, exported once a module, and servers of it in this process."""

import asyncio
import contextlib
import time

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.features import Categorical, Features, Numeric, Sequence
from serve.export import held_once, id_bounds, random_rows
from serve.pack import pack
from serve.up.app import make_app
from serve.up.config import Up
from train.snapshot import dump

FEATURES = Features(
    all=(
        Categorical(name="item", rows=20, role="item"),
        Numeric(name="price", role="item"),
        Sequence(name="history", of=Categorical(name="h", rows=20, share="item"), length=3, role="user"),
        Numeric(name="age", role="user"),
    )
)


def tower(weights, batch):
    seen = jnp.arange(3)[None, :] < batch["history/length"][:, None]
    user = jnp.sum(weights["table"][batch["history"]] * seen[:, :, None], 1) + batch["age"][:, None]
    x = jnp.tanh(weights["table"][batch["item"]] + user) * batch["price"][:, None]
    return {"score": jax.nn.sigmoid(x @ weights["w"]), "pair": x[:, :2]}


def export(folder, *, seed=1, function=tower, features=FEATURES, request=True, **about):
    rng = np.random.default_rng(seed)
    weights = {"table": rng.normal(size=(20, 4)).astype(np.float32), "w": rng.normal(size=4).astype(np.float32)}
    return pack(
        folder,
        function=function,
        weights=weights,
        inputs=features.arrays(inputs_only=True),
        rows=id_bounds(features),
        sample=random_rows(features, rows=16),
        step=7,
        about={"model": "tests:Tower", "features": dump(features), **about},
        platforms=("cpu",),
        shared=held_once(features) if request else None,
    )


def rows_of(n, *, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "item": rng.integers(0, 20, n).astype(np.int32),
        "price": rng.normal(size=n).astype(np.float32),
        "history": rng.integers(0, 20, (n, 3)).astype(np.int32),
        "history/length": rng.integers(0, 4, n).astype(np.int32),
        "age": rng.normal(size=n).astype(np.float32),
    }


def tensors(rows):
    """As JSON inputs of the Open Inference protocol."""
    names = {"i": "INT32", "f": "FP32"}
    return [
        {"name": n, "shape": list(a.shape), "datatype": names[a.dtype.kind], "data": a.ravel().tolist()}
        for n, a in rows.items()
    ]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower") / "export"
    export(folder)
    return folder


@contextlib.contextmanager
def serving(path, **options):
    app = make_app(Up(path=path, **{"max_batch": 32, "watch_seconds": 0, **options}))
    try:
        yield app
    finally:
        app.state.house.close()


@pytest.fixture(scope="module")
def app(exported):
    with serving(exported) as made:
        yield made


def client_of(app, **options):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **options)


def ask(app, method, path, **options):
    async def call():
        async with client_of(app) as client:
            return await client.request(method, path, **options)

    return asyncio.run(call())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def wait_for(condition, *, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
