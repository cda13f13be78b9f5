"""KAR: knowledge that a language model wrote beforehand, adapted and given to a click tower as further fields.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024
(arXiv 2306.10933). Of a person the model reasoned about preferences from the history, of an item it told facts; both
texts became vectors once. A hybrid-expert adaptor takes each to a small vector, and any tower, here DIN, reads the two
beside its fields. No language model is on the way of a request.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.behavior.din import DIN, DINModel
from modules.layers.hybrid_experts import HybridExperts


@chz.chz
class KAR(ModelConfig):
    tower: DIN = chz.field(default_factory=DIN, doc="over all features but the knowledge")
    adaptor: HybridExperts = chz.field(default_factory=HybridExperts)
    reads: tuple[str, ...] = chz.field(
        default=("reasoning", "facts"), doc="dense features with the knowledge that the tower is given; (): none"
    )
    knowledge: tuple[str, ...] = chz.field(default=("reasoning", "facts"), doc="those that the source has")

    @chz.validate
    def _check(self) -> None:
        if not set(self.reads) <= set(self.knowledge):
            raise ValueError(f"KAR reads {self.reads}, of which the source is said to have {self.knowledge}")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "KARModel":
        return KARModel(self, features=features, rngs=rngs)


class KARModel(Model):
    def __init__(self, config: KAR, *, features: Features, rngs: nnx.Rngs):
        self.reads = config.reads
        sizes = {name: features[name].shape[-1] for name in config.knowledge if features[name].kind == "dense"}
        if len(sizes) < len(config.knowledge) or len(set(sizes.values())) > 1:
            raise ValueError(f"knowledge is of vectors of one width, made by one encoder; found {sizes}")
        size = next(iter(sizes.values()))
        self.adaptor = config.adaptor.make(size, origins=len(self.reads), rngs=rngs) if self.reads else None
        others = tuple(f.name for f in features if f.name not in config.knowledge)
        more = config.adaptor.out * len(self.reads)
        self.tower = DINModel(config.tower, features=features.select(names=others), more=more, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        more = [self.adaptor(batch[name], origin=i) for i, name in enumerate(self.reads)] if self.adaptor else []
        return {"logit": self.tower.rank(batch, more=more, rngs=rngs)}
