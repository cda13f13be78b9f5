"""Domains of one space: a contrastive loss of each pair of their vectors, and a classifier of what they show."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import softmax_contrastive
from modules.losses.margin import Kind, Share, large_margin
from train.tasks.base import Logs, Predictions, Task, with_aux

Pair = tuple[str, str]

CROSS: tuple[Pair, ...] = (
    ("page_v", "video_v"),
    ("page_v", "live_v"),
    ("video_v", "live_v"),
    ("page_f", "video_v"),
    ("page_f", "live_v"),
    ("page_t", "video_v"),
    ("page_t", "live_v"),
)
"""The seven of COPE 1.0."""

SPOKEN: tuple[Pair, ...] = (
    ("video_t", "page_t"),
    ("live_t", "page_t"),
    ("video_f", "page_f"),
    ("live_f", "page_f"),
)
"""What COPE 1.1 adds, where a text says something."""

WITHIN: tuple[Pair, ...] = (("page_t", "page_v"), ("video_t", "video_v"), ("live_t", "live_v"))
"""Text and picture of one thing."""


@chz.chz
class CrossDomain(Task):
    """The loss of COPE: sums of C(a, b), InfoNCE in both directions over the global batch, and CosFace.

    Rows in which either side is missing are left out of a pair. Pairs of which the model has no output are left out
    where `spoken` and `within` name them (it has no speech), and refused where `cross` does.
    """

    compares_rows = True

    label: str = chz.field(default="spu", doc="array that is equal for rows of one product")
    domains: tuple[str, ...] = chz.field(default=("page", "video", "live"), doc="outputs that retrieval compares")
    temperature: float = 0.05
    smoothing: float = chz.field(default=0.1, doc="share of the softmax target spread over all pairs")
    cross: float = chz.field(default=1.0, doc="weight of each of the seven pairs across domains")
    spoken: float = chz.field(default=1.0, doc="weight of each of the four pairs of speech with a page")
    within: float = chz.field(default=1.0, doc="weight of text against picture of the same page, video or live stream")
    classify: float = chz.field(default=0.0, doc="weight of the products' classifier over page, video and live stream")
    margin: float = 0.4
    scale: float = chz.field(default=64.0, doc="of the classifier's cosines")
    kind: Kind = "cosface"
    classes: float = chz.field(default=1.0, doc="share of the classes that a step sees (Partial FC)")
    positives: Literal["one", "all"] = chz.field(
        default="one", doc="rows of one product: no negatives (one) or positives too (all)"
    )
    chunk: int | None = chz.field(default=None, doc="as of Contrastive")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {name: outputs[name] for name in self.domains if name in outputs}

    def pairs(self, outputs: Outputs) -> dict[Pair, float]:
        """Pairs with their weights, where those are not zero."""
        found = {pair: self.cross for pair in CROSS if self.cross}
        missing = sorted({side for pair in found for side in pair} - outputs.keys())
        if missing:
            raise UserError(f"CrossDomain compares {missing[0]!r}, which the model does not give for this batch")
        for weight, others in ((self.spoken, SPOKEN), (self.within, WITHIN)):
            found |= {pair: weight for pair in others if weight and set(pair) <= outputs.keys()}
        return found

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.label not in batch:
            raise UserError(f"the task reads {self.label!r}, which the batch does not have")
        labels, total = batch[self.label], jnp.zeros(())
        logs: Logs = {}
        for (a, b), weight in self.pairs(outputs).items():
            loss = softmax_contrastive(
                outputs[a],
                outputs[b],
                scale=1 / self.temperature,
                labels=labels,
                positives=self.positives,
                smoothing=self.smoothing,
                where=outputs[f"{a}/known"] & outputs[f"{b}/known"],
                chunk=self.chunk,
            )
            logs[f"{a}-{b}"] = loss
            total += weight * loss
        if self.classify:
            of_class = self._classified(outputs, labels)
            logs |= of_class
            total += self.classify * sum(of_class.values()) / len(of_class)
        total, named = with_aux(total, outputs)
        return total, {**named, **logs}

    def _classified(self, outputs: Outputs, labels: jax.Array) -> Logs:
        if "classes" not in outputs:
            raise UserError("task.classify needs a classifier: set model.classes to the number of products")
        key = jax.random.key(0) if self.classes == 1 else _key_of(labels)
        losses: Logs = {}
        for domain in self.domains:
            losses[f"class/{domain}"] = large_margin(
                outputs[domain],
                outputs["classes"],
                labels=jnp.where(outputs[f"{domain}/known"], labels, -1),
                scale=self.scale,
                margin=self.margin,
                kind=self.kind,
                share=Share(self.classes, key),
            )
        return losses


def _key_of(labels: jax.Array) -> jax.Array:
    """A draw that changes with the batch and is the same on every device."""
    return jax.random.fold_in(jax.random.key(0), jnp.sum(labels * (1 + jnp.arange(len(labels)))).astype(jnp.uint32))
