"""Next-item models and item-to-item relations as one score: a log-linear pool with a weight for each part.

    s(j | h) = sum_m a_m log p_m(j | h) + sum_r b_r log(1 + c_r s_r(j | h; d_r))

p_m is the softmax of model m over the catalogue (of its scores, where it has those, or of its last state with its
items), s_r the sum over the newest items of h of what relation r (transition counts, words, ...) gives to j, an item
counting d_r of the next newer one. A pool of this form is Genest & Zidek's (Statistical Science 1986, "logarithmic
opinion pool"); the logarithm of counts makes a relation a likelihood too. The parts stay as they were trained
(`optimizer.lr_scale` of 0): only a, b, c and d are fitted, on rows that the parts have not seen.
"""

from collections.abc import Mapping

import chz
import jax
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import FIRST
from modules.layers.given import Related
from modules.losses.items import HIDDEN


@chz.chz
class Relation:
    """How lists of related items are read."""

    listed: int = chz.field(default=256, doc="items of a list")
    newest: int = chz.field(default=20, doc="items of the history whose lists are read")
    decay: float = chz.field(default=0.8, doc="weight of an item of the history, per newer item, to start from")
    scale: float = chz.field(default=7.0, doc="of what the lists add up to inside the logarithm, to start from")


@chz.chz
class Mixture(ModelConfig):
    models: tuple[ModelConfig, ...] = chz.field(default=(), doc="next-item models that were trained elsewhere")
    relations: Mapping[str, Relation] = chz.field(default_factory=dict, doc="by name; init_from fills their lists")
    history: str = chz.field(default="history", doc="sequence of item ids")

    @chz.validate
    def _mixes(self) -> None:
        if not self.models and not self.relations:
            raise ValueError("a mixture needs a model or a relation")
        if odd := [name for name, r in self.relations.items() if not 0 < r.decay < 1]:
            raise ValueError(f"the decay of {odd[0]!r} lies between 0 and 1, both excluded")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MixtureModel":
        return MixtureModel(self, features=features, rngs=rngs)


class MixtureModel(Model):
    def __init__(self, config: Mixture, *, features: Features, rngs: nnx.Rngs):
        size = features[config.history].size
        self.history, self.size = config.history, size
        self.models = nnx.List([model.make(features, rngs=rngs) for model in config.models])
        self.related = nnx.Dict(
            {name: Related(size, listed=r.listed, newest=r.newest) for name, r in sorted(config.relations.items())}
        )
        # No empty arrays: a checkpoint does not take them.
        models, relations = len(config.models), len(config.relations)
        self.of_models = nnx.Param(jnp.full(models, 0.5 / models)) if models else None
        self.of_relations = nnx.Param(jnp.ones(relations)) if relations else None
        scales, decays = (
            jnp.array([getattr(r, name) for _, r in sorted(config.relations.items())]) for name in ("scale", "decay")
        )
        self.log_scale = nnx.Param(jnp.log(scales)) if relations else None
        self.decay_logit = nnx.Param(jnp.log(decays / (1 - decays))) if relations else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """scores [b,v]; those of ids that are no items are the lowest."""
        history, length = batch[self.history], batch[f"{self.history}/length"]
        item = (jnp.arange(self.size) >= FIRST)[None]
        scores = jnp.zeros((history.shape[0], self.size))
        for index, model in enumerate(self.models):
            # Without rngs: the parts are as they serve, whatever is fitted around them.
            outputs = model(batch)
            logits = outputs["scores"] if "scores" in outputs else outputs["last"] @ outputs["items"].T
            logits = jnp.where(item, logits, HIDDEN)
            assert self.of_models is not None
            scores += self.of_models[index] * jax.nn.log_softmax(logits.astype(jnp.float32))
        for index, relation in enumerate(self.related.values()):
            assert self.of_relations is not None and self.log_scale is not None and self.decay_logit is not None
            found = relation(history, length=length, decay=jax.nn.sigmoid(self.decay_logit[index]))
            scores += self.of_relations[index] * jnp.log1p(jnp.exp(self.log_scale[index]) * found)
        return {"scores": jnp.where(item, scores, HIDDEN)}
