"""ICSRec: Intent Contrastive Learning with Cross Subsequences (Qin et al., WSDM 2024, arXiv 2310.14318).

A causal encoder of a history (post-norm, as BERT) and two kinds of company for its newest state: another history that
the same item follows, which shares the intent (coarse), and the nearest of K centres of all training histories
(fine). The losses are `train.tasks.intent_contrast`; the centres are running statistics that the task renews
before each pass.
"""

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.sequential.sasrec import SASRec


@chz.chz
class ICSRec(ModelConfig):
    """As SASRec; in training also "other", the state of the second history, and "centres" [k, d], "centres/made"."""

    encoder: SASRec = chz.field(default=SASRec(norm="post", heads=2, expand=4))
    intents: int = chz.field(default=256, doc="K: clusters of the training histories")
    other: str = chz.field(default="other_history", doc="a history that the same item follows")

    @chz.validate
    def _check(self) -> None:
        if self.intents < 1:
            raise ValueError(f"intents is {self.intents}; give at least one cluster")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "ICSRecModel":
        return ICSRecModel(self, features=features, rngs=rngs)


class ICSRecModel(Model):
    def __init__(self, config: ICSRec, *, features: Features, rngs: nnx.Rngs):
        self.history, self.other = config.encoder.history, config.other
        self.encoder = config.encoder.make(features, rngs=rngs)
        self.centres = nnx.BatchStat(jnp.zeros((config.intents, config.encoder.dim)))
        self.made = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        if rngs is None or self.other not in batch:
            return self.encoder(batch, rngs=rngs)
        both = {
            self.history + part: jnp.concatenate([batch[self.history + part], batch[self.other + part]])
            for part in ("", "/length")
        }
        outputs = self.encoder(both, rngs=rngs)
        rows = batch[self.history].shape[0]
        return {
            "hidden": outputs["hidden"][:rows],
            "last": outputs["last"][:rows],
            "other": outputs["last"][rows:],
            "items": outputs["items"],
            "centres": self.centres[...],
            "centres/made": self.made[...] > 0,
        }
