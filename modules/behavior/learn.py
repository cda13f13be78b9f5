"""LEARN's online half: a tower beside a click tower that adapts the vectors of person and item to what is ranked.

Jia et al., "LEARN", AAAI 2025 (arXiv 2405.03988), the online adaptation. With u and v made offline by the preference
alignment, [u; v] -> MLP -> h -> an auxiliary logit with a loss of its own; the main ranker, here DIN, reads u and v as
fields, and h beside them. A ranker that is given raw pretrained vectors alone tends to pass them by.
"""

import chz
from flax import nnx

from modules.base import AUX_LOGIT, Batch, Features, Model, ModelConfig, Outputs
from modules.behavior.din import DIN, DINModel
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP, linear
from modules.layers.similarity import unit


@chz.chz
class LEARNRanker(ModelConfig):
    """Gives "logit" and, in training, the adaptation tower's own."""

    tower: DIN = chz.field(default_factory=DIN, doc="the main ranker, over all features")
    user: str = chz.field(default="person", doc="dense feature with the person's vector")
    item: str = chz.field(default="content", doc="dense feature with the item's, of the same width")
    adaptation: MLP = chz.field(default=MLP(widths=(64, 32), dropout=0.2), doc="from [u; v] to h")
    product: bool = chz.field(default=True, doc="the tower also reads u ⊙ v, whose sum both were aligned by")
    auxiliary: bool = chz.field(default=True, doc="the tower has a loss of its own")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "LEARNRankerModel":
        return LEARNRankerModel(self, features=features, rngs=rngs)


class LEARNRankerModel(Model):
    def __init__(self, config: LEARNRanker, *, features: Features, rngs: nnx.Rngs):
        self.names = (config.user, config.item)
        self.product, self.auxiliary = config.product, config.auxiliary
        widths = [features[name].shape[-1] for name in self.names]
        if any(features[name].kind != "dense" for name in self.names) or len(set(widths)) > 1:
            raise ValueError(
                f"{config.user!r} and {config.item!r} are to be vectors of one width, made by the two towers of LEARN"
            )
        size = widths[0]
        self.adaptation = config.adaptation.make((3 if config.product else 2) * size, rngs=rngs)
        self.judge = linear(self.adaptation.width, outputs=1, rngs=rngs)
        self.tower = DINModel(config.tower, features=features, more=self.adaptation.width, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        u, v = (unit(batch[name]) for name in self.names)
        # In a request the person's vector has one row and the candidates' many.
        hidden = self.adaptation(side_by_side([u, v, u * v] if self.product else [u, v]), rngs=rngs)
        outputs = {"logit": self.tower.rank(batch, more=(hidden,), rngs=rngs)}
        if rngs is not None and self.auxiliary:
            outputs[f"{AUX_LOGIT}adaptation"] = self.judge(hidden)[:, 0]
        return outputs
