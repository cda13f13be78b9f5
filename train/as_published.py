"""A stage whose workdir holds published weights as they came: for embedding by them, without a step of training."""

from pathlib import Path

import chz

from data.sources import SourceConfig
from modules.base import ModelConfig
from train.experiment import Experiment
from train.init_from import Start
from train.optim import Optimizer
from train.pipeline import Results, Say, Stage, Train
from train.tasks.contrastive import Contrastive


@chz.chz
class AsPublished(Stage):
    """The workdir of a run of no steps: `Embed` and `serve embed` read it as any other."""

    model: ModelConfig
    start: Start = chz.field(doc="the weights, such as train.pretrained:Pretrained")
    source: SourceConfig = chz.field(doc="whose features and tokenizer the model takes")

    def run(self, *, out: Path, say: Say) -> Results:
        # Nothing learns, so no moments are made for it.
        frozen = Optimizer(lr_scale=((".", 0.0),))
        experiment = Experiment(
            model=self.model,
            task=Contrastive(),
            source=self.source,
            optimizer=frozen,
            init_from=self.start,
            steps=0,
        )
        return Train(experiment=experiment).run(out=out, say=say)
