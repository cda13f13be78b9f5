"""The rows of a table are known by content: another value, another order or another length is another split."""

import hashlib

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label
from data.sources import InMemory, SourceConfig
from train.protocol import split
from train.protocol.split import Build, Part, Split, digest

FEATURES = Features(all=(Categorical(name="item", rows=9), Label(name="click")))


@chz.chz
class Clicks(SourceConfig):
    items: tuple[int, ...] = (2, 3, 4, 5, 6)

    def make(self):
        items = np.array(self.items)
        return InMemory({"item": items, "click": items % 2}, features=FEATURES)


def known(source):
    """The sha256 written down from its definition."""
    lines = b""
    for name, dtype in (("click", "<f4"), ("item", "<i4")):
        content = np.asarray(source.columns[name], dtype)
        lines += f"{name} {dtype} [] {hashlib.sha256(content.tobytes()).hexdigest()}\n".encode()
    return hashlib.sha256(lines).hexdigest()


def run(part, tmp_path):
    return Split(parts={"valid": part}).run(out=tmp_path, say=lambda line: None)


def test_digest_is_of_the_content_whatever_the_blocks(monkeypatch):
    source = Clicks().make()
    assert digest(source) == known(source)
    monkeypatch.setattr(split, "CHUNK", 2)
    assert digest(source) == known(source)


@pytest.mark.parametrize("items", [(2, 3, 4, 6, 5), (2, 3, 4, 5), (2, 3, 4, 5, 7)])
def test_other_rows_have_another_digest(items):
    assert digest(Clicks(items=items).make()) != digest(Clicks().make())


def test_the_right_rows_pass_and_are_recorded(tmp_path):
    due = known(Clicks().make())
    assert run(Part(source=Clicks(), rows=5, sha256=due), tmp_path) == {"valid/rows": 5, "valid/sha256": due}


def test_wrong_rows_stop_and_name_what_differs(tmp_path):
    due = known(Clicks().make())
    with pytest.raises(UserError, match="valid has rows 5, the config says 6: these are other rows"):
        run(Part(source=Clicks(), rows=6, sha256=due), tmp_path)
    with pytest.raises(UserError, match=r"valid has sha256 \w+, the config says") as error:
        run(Part(source=Clicks(items=(2, 3, 4, 5, 7)), rows=5, sha256=due), tmp_path)
    assert "rows 5" not in str(error.value)


def test_the_arrays_that_count_can_be_named(tmp_path):
    only = digest(Clicks().make(), arrays=("click",))
    even = Clicks(items=(4, 5, 2, 7, 8))
    assert run(Part(source=even, rows=5, sha256=only, arrays=("click",)), tmp_path)["valid/sha256"] == only
    with pytest.raises(UserError, match="names 'clicks'; the source has click, item"):
        digest(Clicks().make(), arrays=("clicks",))


def test_a_missing_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("ADLOOM_DATA", raising=False)
    stage = Build(name="frappe", manual="$ADLOOM_DATA/ctr/frappe", config="x1_without_test")
    with pytest.raises(UserError, match="the environment variable ADLOOM_DATA is not set"):
        stage.run(out=tmp_path, say=lambda line: None)
