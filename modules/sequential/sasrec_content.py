"""SASRec whose items are known by their words: a learned vector of the id plus a learned map of a given vector.

The transformer, its reading of the history and its scores are those of `modules.sequential.sasrec` (Kang & McAuley,
ICDM 2018); eq. 1 and eq. 6 read the sum e_i + W v_i in place of e_i. `ids=False` leaves W v_i alone: such a model ranks
the items of any catalogue whose vectors come from the same encoder, items that nobody has bought included.
"""

import chz
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, Features, Outputs
from modules.layers.given import GivenVectors
from modules.sequential.sasrec import SASRec, SASRecModel


@chz.chz
class SASRecContent(SASRec):
    width: int = chz.field(default=128, doc="of the given vectors")
    ids: bool = chz.field(
        default=True, doc="whether an item has a learned vector too; without, unseen items rank alike"
    )
    std: float = chz.field(default=0.1, doc="initial deviation of the map; given vectors have length 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SASRecContentModel":
        return SASRecContentModel(self, features=features, rngs=rngs)


class SASRecContentModel(SASRecModel):
    def __init__(self, config: SASRecContent, *, features: Features, rngs: nnx.Rngs):
        super().__init__(config, features=features, rngs=rngs)
        size = features[config.history].size
        self.content = GivenVectors(size, width=config.width, dim=config.dim, std=config.std, rngs=rngs)
        self.ids = config.ids
        if not config.ids:
            del self.item

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        items = self.items()
        hidden, last = self.encode(self.vectors(batch[self.history], items=items), batch=batch, rngs=rngs)
        return {"hidden": hidden, "last": last, "items": items}

    def items(self) -> Float[Array, "v d"]:
        content = self.content.rows()
        return self.item.rows() + content if self.ids else content

    def vectors(self, ids: Int[Array, "b t"], *, items: Float[Array, "v d"]) -> Float[Array, "b t d"]:
        return items[ids] * self.scale
