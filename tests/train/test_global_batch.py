"""One contrastive run on 1, 2 and 4 devices has one loss curve: its negatives are those of the global batch."""

import chz
import numpy as np
import pytest

from data.features import Features, Image, Label, Text
from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from modules.content.image_text import ImageText
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ViT
from tests.benchmarks.global_batch import GOAL, curve
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.contrastive import Contrastive

FEATURES = Features(
    all=(
        Image(name="image", height=8, width=8),
        Text(name="title", tokens=12, length=4),
        Label(name="product", type="class"),
    )
)
STEPS, ROWS = 12, 16


@chz.chz
class Listings(SourceConfig):
    """Noise, with products that several rows of a batch show."""

    def make(self) -> InMemory:
        rng = np.random.default_rng(0)
        rows = {
            "image": rng.integers(0, 256, (64, 8, 8, 3)),
            "title": rng.integers(1, 12, (64, 4)),
            "title/length": rng.integers(1, 5, 64),
            "product": np.arange(64) % 40,
        }
        return InMemory(rows, features=FEATURES)


def experiment(objective, chunk):
    return Experiment(
        model=ImageText(
            dim=8,
            vision=ViT(patch=4, dim=8, depth=1, heads=2),
            language=TextTransformer(dim=8, heads=2),
            bias=-2.0 if objective == "sigmoid" else None,
        ),
        task=Contrastive(objective=objective, label="product", chunk=chunk),
        source=Listings(),
        loader=Loader(batch_size=ROWS, prefetch=0),
        optimizer=Optimizer(lr=1e-2),
        steps=STEPS,
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_the_loss_curve_is_that_of_one_device(objective):
    alone = curve(experiment(objective, None), devices=1, steps=STEPS)
    assert np.std(alone) > 10 * GOAL  # it moves
    for devices, chunk in ((2, None), (4, None), (2, 2), (4, 4)):
        found = curve(experiment(objective, chunk), devices=devices, steps=STEPS)
        np.testing.assert_allclose(found, alone, atol=GOAL, err_msg=f"{devices} devices, chunk {chunk}")


@pytest.mark.slow
def test_a_batch_of_each_devices_own_would_not_have_it():
    """What the test above would find if negatives came from a device's own rows."""
    halves = [curve(chz.replace(experiment("softmax", None), loader=Loader(batch_size=ROWS // 2)), devices=1, steps=1)]
    assert abs(halves[0][0] - curve(experiment("softmax", None), devices=1, steps=1)[0]) > 100 * GOAL
