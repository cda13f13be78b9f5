"""Overrides reach any field by its dotted name, with the field's type, and name what is wrong."""

import chz
import pytest

from data.errors import UserError
from tests.train.tiny import tiny
from train.optim import Optimizer
from train.protocol.space import Choices, Range, overridden, words

pytestmark = pytest.mark.usefixtures("storable_tests")


def test_fields_of_any_depth_are_replaced_and_the_rest_stays():
    base = tiny(optimizer=Optimizer(lr_scale=(("table", 0.5), ("bias", 1.0))))
    new = overridden(base, {"model.mlp.widths": (4, 4), "optimizer.lr_scale.0.1": 2, "evals.valid.batch_size": 64})
    assert new.model.mlp.widths == (4, 4)
    assert new.optimizer.lr_scale == (("table", 2.0), ("bias", 1.0))
    assert isinstance(new.optimizer.lr_scale[0][1], float)
    assert new.evals["valid"].batch_size == 64
    back = {"model.mlp.widths": (8,), "optimizer.lr_scale.0.1": 0.5, "evals.valid.batch_size": 128}
    assert overridden(new, back) == base


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.mlp.width", (4,), "no field 'width': did you mean 'widths'"),
        ("optimiser.lr", 0.1, "no field 'optimiser': did you mean 'optimizer'"),
        ("optimizer.lr_scale.0.1", 0.1, "no field '0': there is none"),
        ("model.mlp.dropout", "high", "is 0.0; 'high' of the search space is of another type"),
        ("steps", 1.5, "steps is 12; 1.5"),
    ],
)
def test_wrong_names_and_types_are_refused(name, value, message):
    with pytest.raises(UserError, match=message):
        overridden(tiny(), {name: value})


def test_a_class_still_checks_its_values():
    with pytest.raises(ValueError, match="clip_norm"):
        overridden(tiny(), {"optimizer.clip_norm": -1.0})


def test_dimensions():
    choices = Choices(values=((400, 400), (200,)))
    assert choices.distribution().choices == (0, 1)
    assert choices.value(1) == (200,)
    span = Range(low=1e-4, high=1e-2, log=True)
    assert (span.distribution().low, span.distribution().high, span.distribution().log) == (1e-4, 1e-2, True)
    assert span.value(0.00123456) == 0.001235
    with pytest.raises(ValueError, match="needs values"):
        Choices(values=())
    for low, high, log in ((1.0, 1.0, False), (0.0, 1.0, True)):
        with pytest.raises(ValueError, match="is empty"):
            Range(low=low, high=high, log=log)


def test_words_are_overrides_of_the_command_line():
    assert words({"a.b": 0.5, "c": (1, 2)}) == "a.b=0.5 c=1,2"
    assert words({}) == "as published"
    assert chz.replace(tiny(), steps=3) == overridden(tiny(), {"steps": 3})
