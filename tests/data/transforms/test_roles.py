"""A feature that becomes a group stays in the batch and leaves the model's inputs."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Numeric
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.roles import AsGroup

FEATURES = Features(all=(Categorical(name="user", rows=9, role="user"), Numeric(name="price"), Label(name="click")))


def test_a_group_is_in_the_batch_and_no_input():
    source = InMemory({"user": np.arange(4), "price": np.ones(4), "click": np.zeros(4)}, features=FEATURES)
    batches = Loader(batch_size=4, shuffle=False, prefetch=0, transforms=(AsGroup(feature="user"),)).open(source)
    np.testing.assert_array_equal(next(batches)["user"], np.arange(4))
    assert set(batches.features.arrays(inputs_only=True)) == {"price"}
    assert batches.features["user"].kind == "group"
    assert batches.features["user"].role == "user"


def test_a_number_is_no_group():
    with pytest.raises(UserError, match="'price' is numeric"):
        AsGroup(feature="price").features(FEATURES)
