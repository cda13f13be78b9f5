"""An artefact's program for one user and many candidates."""

import numpy as np
import pytest

from data.errors import UserError
from serve.artifact import load
from serve.export import held_once
from serve.pack import pack
from tests.serve.test_artifact import FEATURES, rows_of, tower

SHARED = ("history", "history/length")


def weights():
    rng = np.random.default_rng(1)
    return {"table": rng.normal(size=(20, 4)).astype(np.float32), "w": rng.normal(size=4).astype(np.float32)}


def write(output, *, function=tower, shared=SHARED):
    return pack(
        output,
        function=function,
        weights=weights(),
        inputs=FEATURES.arrays(inputs_only=True),
        rows={"item": 20, "history": 20},
        sample=rows_of(16),
        step=7,
        about={},
        platforms=("cpu",),
        shared=shared,
    )


def one_user(rows: int):
    batch = rows_of(rows)
    user = {n: a[:1] if n in SHARED else a for n, a in batch.items()}
    return user, {n: np.repeat(a, rows, axis=0) if n in SHARED else a for n, a in user.items()}


def test_a_request_scores_as_its_rows(tmp_path):
    artifact = load(write(tmp_path), max_batch=16)
    for candidates in (1, 5, 16, 50):  # padded, whole, and in several calls
        request, tiled = one_user(candidates)
        found = artifact.request(request)["score"]
        assert found.shape == (candidates,)
        np.testing.assert_allclose(found, artifact(tiled)["score"], atol=1e-6)


def test_what_a_request_holds_once_goes_by_role():
    assert set(held_once(FEATURES)) >= set(SHARED)


def test_wrong_requests_are_refused(tmp_path):
    artifact = load(write(tmp_path / "a"))
    with pytest.raises(UserError, match=r"one row of the user and the context; given: .*'history': 5"):
        artifact.request(rows_of(5))
    request, _ = one_user(5)
    with pytest.raises(UserError, match="holds ids"):
        artifact.request({**request, "item": request["item"] + 20})
    with pytest.raises(UserError, match="has no program for requests; export with --request"):
        load(write(tmp_path / "b", shared=None)).request(request)
    with pytest.raises(UserError, match="inputs of the item and of the user or context"):
        write(tmp_path / "c", shared=())


def test_a_model_that_scores_requests_otherwise_is_not_exported(tmp_path):
    def by_position(weights, batch):
        scores = tower(weights, batch)["score"]
        return {"score": scores + batch["history/length"].mean() * batch["history/length"].shape[0]}

    with pytest.raises(UserError, match="does not score a request as it scores its rows: output 'score' differs"):
        write(tmp_path, function=by_position)
