"""Defaults of the families of systems, each stated once."""

from data.mall.config import Mall
from data.mall.sources import MallClicks, Split
from data.pipeline import Loader
from modules.base import ModelConfig
from train.evaluators import Evaluate, Slice
from train.experiment import Experiment
from train.metrics.auc import AUC, PossibleAUC
from train.metrics.calibration import ECE
from train.metrics.gauc import GAUC
from train.metrics.point import LogLoss, NormalisedEntropy
from train.optim import Optimizer
from train.tasks.pointwise import Pointwise

HISTORY = 20


def clicks(split: Split = "train", *, history: int = HISTORY, content: str | None = None) -> MallClicks:
    """The mall's impressions, with item vectors from the file `content` where it is given."""
    return MallClicks(mall=Mall(), split=split, history=history, content=content)


def click_experiment(model: ModelConfig, *, history: int = HISTORY, lr: float = 3e-3, steps: int = 600) -> Experiment:
    """A click tower on the mall's impressions: about one pass, since click towers overfit in the second."""
    metrics = (
        AUC(),
        GAUC(group="user_group"),
        LogLoss(),
        NormalisedEntropy(),
        ECE(),
        PossibleAUC(truth="true_ctr"),
    )
    slices = {"cold": Slice(feature="is_cold", equals=1)}
    return Experiment(
        model=model,
        task=Pointwise(),
        source=clicks(history=history),
        loader=Loader(batch_size=1024),
        optimizer=Optimizer(lr=lr),
        evals={
            "valid": Evaluate(
                source=clicks("valid", history=history),
                metrics=metrics,
                slices=slices,
                batch_size=4096,
            )
        },
        steps=steps,
    )
