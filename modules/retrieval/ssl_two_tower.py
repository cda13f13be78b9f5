"""Two towers whose item side also learns from items that nobody clicked.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021, arXiv 2007.12865. Of an item
drawn from the corpus two views are made, in which complementary parts of its fields are masked: a masked field is the
field's own default vector. Both pass the tables and the tower that also serve the main task; the view of an item must
find the other view of the same item among those of a batch (eq. 1; the task adds α times that loss).
"""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Outputs
from modules.layers.fields import side_by_side
from modules.layers.similarity import unit
from modules.retrieval.two_tower import TwoTower, TwoTowerModel

VIEWS = ("view_a", "view_b")


@chz.chz
class SSLTwoTower(TwoTower):
    """Also outputs "view_a" and "view_b", where the batch has "<view>/<feature>" and "<view>/<feature>/masked"."""

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SSLTwoTowerModel":
        return SSLTwoTowerModel(self, features=features, rngs=rngs)


class SSLTwoTowerModel(TwoTowerModel):
    def __init__(self, config: SSLTwoTower, *, features: Features, rngs: nnx.Rngs):
        super().__init__(config, features=features, rngs=rngs)
        normal = nnx.initializers.normal(config.embedding.std)
        self.default = nnx.Dict(
            {name: nnx.Param(normal(rngs.params(), (self.embed.width(name),))) for name in self.item_names}
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = super().__call__(batch, rngs=rngs)
        for view in VIEWS:
            if any(name.startswith(f"{view}/") for name in batch):
                outputs[view] = self._view(batch, view=view, rngs=rngs)
        return outputs

    def _view(self, batch: Batch, *, view: str, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        shown = {name.removeprefix(f"{view}/"): value for name, value in batch.items() if name.startswith(f"{view}/")}
        absent = [name for name in self.item_names if f"{name}/masked" not in shown]
        if absent:
            raise KeyError(f"{view} lacks {', '.join(absent)}, which the item tower reads: the corpus must have them")
        vectors = self.embed.pooled(shown, names=self.item_names)
        parts = []
        for name, vector in vectors.items():
            masked = shown[f"{name}/masked"][:, None].astype(vector.dtype)
            default = jnp.asarray(self.default[name][...], vector.dtype)[None]
            parts.append((1 - masked) * vector + masked * default)
        x = self.item(side_by_side(parts), rngs=rngs)
        return unit(x) if self.normalize else x
