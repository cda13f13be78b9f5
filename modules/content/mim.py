"""MIM: Multi-modal content Interest Modeling, stages 1 and 2: encoders that know the domain, then what is bought.

Yan et al., "MIM: Multi-modal Content Interest Modeling Paradigm for User Behavior Modeling", arXiv 2502.00321, 2025.
Stage 3 (CiUBM) is modules/behavior/mim.py. The authors' losses could not be read; a reconstruction of what is known:

    f_I of a picture, f_T of a title, f_M = MLP([f_I; f_T]), all of unit length
    stage 1    NCE(f_I(x), f_I(x')) of two views of a picture, NCE(f_I, f_T) of one listing, and hidden tokens told
    stage 2    C-SFT, of a searched picture q and the product p taken: NCE(f_I(q), f_I(p)) + NCE(f_I(q), f_T(p)) +
               NCE(f_I(q), f_M(p)); negatives of the batch and of p's category (space) and of past batches (time)
A part that is missing, a black picture or an empty title, is zero; so is f_M where both are.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.gelu import gelu
from modules.layers.linear import Linear
from modules.layers.masking import hide, told
from modules.layers.memory_bank import MemoryBank
from modules.layers.mlp import MLP
from modules.layers.one_pass import in_one_pass
from modules.layers.positions import mean_valid
from modules.layers.similarity import unit

QUERY, OTHER = "query_", "other_"
HIDDEN = "hidden"
Words = tuple[Int[Array, "b t"], Bool[Array, "b t"], Bool[Array, "b t"]]
"""Ids, which there are, and which are hidden."""

Vector = tuple[Float[Array, "b d"], Bool[Array, "b"]]
"""Of each row, and whether there is one."""


@chz.chz
class MIMEncoder(ModelConfig):
    """Outputs "query" (of "query_<image>"), "image", "text" and "fused", each with "<name>/known"; in training also
    "<name>/negatives" of "other_<image>" and "other_<title>", "<name>/bank", and the loss of hidden tokens."""

    dim: int = chz.field(default=64, doc="of the vectors")
    vision: ImageEncoder = chz.field(default_factory=ViT, blueprint_unspecified=ViT)
    language: TextTransformer = chz.field(default_factory=TextTransformer)
    hidden: int = chz.field(default=128, doc="width inside of f_M")
    masked: float = chz.field(default=0.0, doc="share of the title's tokens that stage 1 hides and has told; 0: none")
    bank: int = chz.field(default=0, doc="products of past batches that are negatives too")
    key: str = chz.field(default="spu", doc="label of the bank: earlier listings of a query's product are no negatives")
    bank_after: int = chz.field(default=0, doc="batches before the bank counts, while vectors move fast")
    image: str = "image"
    title: str = "title"

    @chz.validate
    def _check(self) -> None:
        if not 0 <= self.masked < 1:
            raise ValueError(f"masked is {self.masked}; give a share from 0 to below 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MIMEncoderModel":
        return MIMEncoderModel(self, features=features, rngs=rngs)


class MIMEncoderModel(Model):
    def __init__(self, config: MIMEncoder, *, features: Features, rngs: nnx.Rngs):
        image, title = features[config.image], features[config.title]
        self.image, self.title, self.masked, self.key = config.image, config.title, config.masked, config.key
        self.vision = config.vision.make(image.shape, rngs=rngs)
        self.language = config.language.make(tokens=title.size, length=title.max_len, rngs=rngs)
        self.image_out = Linear(self.vision.width, config.dim, use_bias=False, rngs=rngs)
        self.text_out = Linear(self.language.width, config.dim, use_bias=False, rngs=rngs)
        self.fuse = MLP(widths=(config.hidden,)).make(2 * config.dim, outputs=config.dim, rngs=rngs)
        self.tell = Linear(self.language.width, self.language.width, rngs=rngs) if config.masked else None
        banks = ("image", "text", "fused") if config.bank else ()
        self.banks = nnx.Dict(
            {name: MemoryBank(config.bank, dim=config.dim, after=config.bank_after) for name in banks}
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        pictures = {
            side: batch[side + self.image] for side in (QUERY, *self._sides(rngs)) if side + self.image in batch
        }
        shown = in_one_pass(lambda images: self._picture(images, rngs=rngs), pictures)
        states, words = self._titles(batch, rngs=rngs)
        said = {side: self._title(x, where=words[side][1]) for side, x in states.items() if side != HIDDEN}
        found = self._product(shown, said, "", rngs=rngs) | ({"query": shown[QUERY]} if QUERY in shown else {})
        outputs = {name: x for name, (x, _) in found.items()}
        outputs |= {f"{name}/known": there for name, (_, there) in found.items()}
        if rngs is None:
            return outputs
        for name, (x, there) in self._product(shown, said, OTHER, rngs=rngs).items():
            outputs[f"{name}/negatives"], outputs[f"{name}/negatives/known"] = x[:, None], there[:, None]
        for name, bank in self.banks.items():
            if name in outputs:
                held, filled, label = bank(outputs[name], labels=batch.get(self.key), rngs=rngs)
                outputs[f"{name}/bank"], outputs[f"{name}/bank/known"] = held, filled & jnp.any(held != 0, axis=1)
                outputs[f"{name}/bank/label"] = label
        if HIDDEN in states:
            outputs[f"{AUX_LOSS}hidden"] = self._told(states[HIDDEN], ids=words[""][0], shown=words[HIDDEN])
        return outputs

    def _sides(self, rngs: nnx.Rngs | None) -> tuple[str, ...]:
        return ("",) if rngs is None else ("", OTHER)

    def _picture(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None) -> Vector:
        """f_I."""
        there = jnp.any(images != 0, axis=(1, 2, 3))
        return jnp.where(there[:, None], unit(self.image_out(self.vision(images, rngs=rngs))), 0), there

    def _title(self, states: Float[Array, "b t d"], *, where: Bool[Array, "b t"]) -> Vector:
        """f_T."""
        return unit(self.text_out(mean_valid(states, where=where))), where.any(axis=1)

    def _product(
        self, shown: dict[str, Vector], said: dict[str, Vector], side: str, *, rngs: nnx.Rngs | None
    ) -> dict[str, Vector]:
        """f_I, f_T and f_M of the parts that are in the batch."""
        found = {name: of[side] for name, of in (("image", shown), ("text", said)) if side in of}
        if len(found) == 2:
            there = found["image"][1] | found["text"][1]
            fused = self.fuse(jnp.concatenate([x for x, _ in found.values()], axis=1), rngs=rngs)
            found["fused"] = jnp.where(there[:, None], unit(fused), 0), there
        return found

    def _titles(self, batch: Batch, *, rngs: nnx.Rngs | None) -> tuple[dict[str, jax.Array], dict[str, Words]]:
        """The last layer's vectors of the titles, and the titles: ids, which there are, and which are to be told."""
        words: dict[str, Words] = {}
        for side in self._sides(rngs):
            if side + self.title in batch:
                where = valid(batch, side + self.title)
                words[side] = batch[side + self.title], where, jnp.zeros_like(where)
        if self.tell is not None and rngs is not None and "" in words:
            ids, where, _ = words[""]
            shown, hidden = hide(ids, where=where, share=self.masked, size=self.language.tokens.size, rngs=rngs)
            words[HIDDEN] = shown, where, hidden
        return in_one_pass(lambda w: self.language.states(w[0], where=w[1], rngs=rngs), words), words

    def _told(self, states: Float[Array, "b t d"], *, ids: Int[Array, "b t"], shown: Words) -> Float[Array, ""]:
        """The loss of the hidden tokens; the table of words is that of the answers."""
        logits = gelu(self.tell(states), kind="tanh") @ self.language.tokens.rows().T
        return told(logits, ids=ids, hidden=shown[2])
