"""One funnel for all tests of this folder: the shipped config on the tiny mall, trained for a few steps.

An image-text encoder takes longer to compile than all the rest: its channel has the two towers' vectors here.
"""

import chz
import pytest

from configs import funnel_mall
from data.mall.config import Mall
from serve.funnel import open_funnel
from tests.contract.cases import shrunk
from train.pipeline import run_pipeline
from train.snapshot import dump, load

MALL = Mall(size="tiny", seed=0)
STEPS = 20


def tiny_pipeline():
    pipeline = load(shrunk(dump(funnel_mall.get_config())))
    stages = dict(pipeline.stages)
    for name in ("two_tower", "tower"):
        stages[name] = chz.replace(stages[name], experiment=chz.replace(stages[name].experiment, steps=STEPS))
    stages["two_tower"] = chz.replace(
        stages["two_tower"], experiment=chz.replace(stages["two_tower"].experiment, evals={})
    )
    for name in ("encoder", "by_words", "by_picture", "words"):  # what reads them: tests/serve/up/test_page.py
        del stages[name]
    stages["content"] = stages["items"]
    for name in ("query", "ranker"):
        stages[name] = chz.replace(stages[name], platforms=("cpu",))
    stages["replay"] = chz.replace(stages["replay"], most=40)
    channels = dict(stages["funnel"].config.channels)
    del channels["search"]
    channels = {name: chz.replace(channel, quota=40) for name, channel in channels.items()}
    config = chz.replace(stages["funnel"].config, channels=channels)
    merge = chz.replace(config.merge, limit=60)
    stages["funnel"] = chz.replace(stages["funnel"], config=chz.replace(config, merge=merge))
    return chz.replace(pipeline, stages=stages)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Folder of the pipeline, and the figures of its stages."""
    workdir = tmp_path_factory.mktemp("funnel") / "run"
    return workdir, run_pipeline(tiny_pipeline(), workdir=workdir, say=lambda _: None)


@pytest.fixture(scope="session")
def folder(ran):
    return ran[0] / "funnel" / "funnel"


@pytest.fixture(scope="session")
def funnel(folder):
    return open_funnel(folder)
