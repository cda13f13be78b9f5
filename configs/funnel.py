"""Defaults of the systems that predict what follows a click."""

import chz

from configs.common import HISTORY, click_experiment
from data.mall.config import Mall
from data.mall.funnel import MallFunnel
from data.mall.sources import Split
from modules.base import ModelConfig
from train.evaluators import Evaluate
from train.experiment import Experiment
from train.metrics.auc import AUC
from train.metrics.base import Metric
from train.metrics.calibration import ECE
from train.metrics.expected import ExpectedAUC
from train.metrics.gauc import GAUC
from train.metrics.point import LogLoss
from train.tasks.base import Task
from train.tasks.multi_task import Head, MultiTask

CLICK = (
    AUC(score="score/click", name="click/auc"),
    GAUC(score="score/click", name="click/gauc", group="user_group"),
    LogLoss(score="score/click", name="click/logloss"),
)
PURCHASE = (
    AUC(label="purchase", score="score/purchase", name="purchase/auc"),
    ExpectedAUC(truth="true_purchase", score="score/purchase", name="purchase/auc/expected"),
    LogLoss(label="purchase", score="score/purchase", name="purchase/logloss"),
    ECE(label="purchase", score="score/purchase", name="purchase/ece"),
)
"""A purchase through this impression, of all impressions; expected: over the labels that the true chances give."""
CVR = (
    AUC(label="purchase", score="score/cvr", name="cvr/auc", where="click"),
    ExpectedAUC(truth="true_cvr", score="score/cvr", name="cvr/auc/expected"),
)
"""A purchase if clicked: as a log shows it, of clicked impressions; and of all, by the true chances."""


def funnel(split: Split = "train") -> MallFunnel:
    return MallFunnel(mall=Mall(), split=split, history=HISTORY)


def funnel_experiment(model: ModelConfig, *, task: Task, metrics: tuple[Metric, ...]) -> Experiment:
    """A tower of several heads on the mall's impressions."""
    base = click_experiment(model)
    valid = base.evals["valid"]
    evals = {"valid": Evaluate(source=funnel("valid"), metrics=metrics, slices=valid.slices, batch_size=4096)}
    return chz.replace(base, task=task, source=funnel(), evals=evals)


def click_and_purchase(model: ModelConfig) -> Experiment:
    """Two tasks of all impressions."""
    task = MultiTask(heads={"click": Head(label="click"), "purchase": Head(label="purchase")})
    return funnel_experiment(model, task=task, metrics=(*CLICK, *PURCHASE))
