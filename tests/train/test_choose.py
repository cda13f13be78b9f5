"""From a search to retraining: the file between them holds what the search's checkpoint says."""

import json

import chz
import pytest

from data.errors import UserError
from modules.ctr.dnn import DNN
from modules.ctr.optinter import METHODS, OptInter
from modules.layers.mlp import MLP
from tests.train.tiny import tiny
from train.choose import ChooseInteractions
from train.experiment import load_experiment
from train.held_out import HeldOut
from train.init_from import InitFrom
from train.pipeline import Pipeline, Train, run_pipeline

pytestmark = pytest.mark.usefixtures("storable_tests")

SEARCH = OptInter(dim=4, cross_dim=2, cross_rows=50, mlp=MLP(widths=(8,)))


def pipeline(model):
    search = chz.replace(tiny(), model=model, held_out=HeldOut(params=r"^alpha$"))
    retrained = chz.replace(tiny(), model=chz.replace(SEARCH, assignment="@choose/assignment.json"))
    return Pipeline(
        stages={
            "search": Train(experiment=search),
            "choose": ChooseInteractions(of="@search"),
            "retrained": Train(experiment=retrained),
        }
    )


def test_retraining_builds_what_the_search_chose(tmp_path):
    figures = run_pipeline(pipeline(SEARCH), workdir=tmp_path / "run", say=lambda line: None)
    alpha = InitFrom(workdir=str(tmp_path / "run/search")).load()["params"]["alpha"]
    chosen = json.loads((tmp_path / "run/choose/assignment.json").read_text())["pairs"]
    assert chosen == {"user x item": METHODS[int(alpha[0].argmax())]}
    names = InitFrom(workdir=str(tmp_path / "run/retrained")).load()["params"].keys()
    method = chosen["user x item"]
    assert ("crosses/table" in names) == (method == "memorize")
    assert any(n.startswith("factors/") for n in names) == (method == "factorize")
    assert "alpha" not in names
    assert figures["choose"][method] == 1 and figures["choose"]["cross_rows_of_all"] == 50
    # The retrained run is served later, from its own folder.
    assert load_experiment(tmp_path / "run/retrained").model.assignment.endswith("assignment.json")


def test_what_is_no_search_is_refused(tmp_path):
    stages = {
        "plain": Train(experiment=tiny(steps=1, model=DNN(dim=4, mlp=MLP(widths=(8,))))),
        "choose": ChooseInteractions(of="@plain"),
    }
    with pytest.raises(UserError, match="is no search"):
        run_pipeline(Pipeline(stages=stages), workdir=tmp_path / "run", say=lambda line: None)
