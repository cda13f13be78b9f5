"""A config becomes JSON and comes back equal in a fresh process; foreign names are refused."""

import json
import subprocess
import sys

import chz
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Sequence
from train.snapshot import dump, fingerprint, load


@pytest.fixture
def features():
    item = Categorical(name="item", rows=10, role="item")
    return Features(all=(item, Sequence(name="history", of=item, length=5, role="user"), Label(name="click")))


def test_round_trip_is_equal(features):
    assert load(json.loads(json.dumps(dump(features)))) == features


def test_fresh_process_rebuilds_the_same(features, root, tmp_path):
    stored = tmp_path / "features.json"
    stored.write_text(json.dumps(dump(features)))
    code = (
        "import json,sys; from train.snapshot import load, dump;"
        "print(json.dumps(dump(load(json.load(open(sys.argv[1]))))))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(stored)], cwd=root, capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == dump(features)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "tests.conftest:rng", "builtins:dict"])
def test_names_outside_our_packages_are_refused(name):
    with pytest.raises(UserError, match="may only name classes of"):
        load({"$type": name})


def test_our_functions_are_refused():
    with pytest.raises(UserError, match="not a config class"):
        load({"$type": "train.snapshot:load", "stored": {}})


def test_foreign_config_classes_are_refused():
    @chz.chz
    class Foreign:
        x: int = 1

    with pytest.raises(UserError, match="not part of adloom"):
        dump(Foreign())


def test_unknown_field_names_the_nearest(features):
    stored = dump(features["item"])
    stored["rowz"] = stored.pop("rows")
    with pytest.raises(UserError, match="did you mean 'rows'"):
        load(stored)


def test_fingerprint_changes_with_a_leaf(features):
    stored = dump(features)
    same = fingerprint(json.loads(json.dumps(stored)))
    stored["all"][0]["rows"] = 11
    assert fingerprint(stored) != same == fingerprint(dump(features))
