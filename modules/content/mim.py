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
from jaxtyping import Array, Bool, Float

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.gelu import gelu
from modules.layers.masking import hide, told
from modules.layers.memory_bank import MemoryBank
from modules.layers.mlp import MLP
from modules.layers.similarity import unit

QUERY, OTHER = "query_", "other_"
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
        self.image, self.title, self.masked = config.image, config.title, config.masked
        self.vision = config.vision.make(image.shape, rngs=rngs)
        self.language = config.language.make(tokens=title.size, length=title.max_len, rngs=rngs)
        self.image_out = nnx.Linear(self.vision.width, config.dim, use_bias=False, rngs=rngs)
        self.text_out = nnx.Linear(self.language.width, config.dim, use_bias=False, rngs=rngs)
        self.fuse = MLP(widths=(config.hidden,)).make(2 * config.dim, outputs=config.dim, rngs=rngs)
        self.tell = nnx.Linear(self.language.width, self.language.width, rngs=rngs) if config.masked else None
        banks = ("image", "text", "fused") if config.bank else ()
        self.banks = nnx.Dict({name: MemoryBank(config.bank, dim=config.dim) for name in banks})

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        product = self._product(batch, "", rngs=rngs)
        found = dict(product)
        if QUERY + self.image in batch:
            found["query"] = self._picture(batch[QUERY + self.image], rngs=rngs)
        outputs = {name: x for name, (x, _) in found.items()}
        outputs |= {f"{name}/known": there for name, (_, there) in found.items()}
        if rngs is None:
            return outputs
        for name, (x, there) in self._product(batch, OTHER, rngs=rngs).items():
            outputs[f"{name}/negatives"], outputs[f"{name}/negatives/known"] = x[:, None], there[:, None]
        for name, bank in self.banks.items():
            if name not in outputs:
                continue
            held, filled = bank(outputs[name], rngs=rngs)
            outputs[f"{name}/bank"], outputs[f"{name}/bank/known"] = held, filled & jnp.any(held != 0, axis=1)
        if self.tell is not None:
            outputs[f"{AUX_LOSS}hidden"] = self._told(batch, rngs=rngs)
        return outputs

    def _product(self, batch: Batch, prefix: str, *, rngs: nnx.Rngs | None) -> dict[str, Vector]:
        """f_I, f_T and f_M of the parts that are in the batch."""
        found = {}
        if prefix + self.image in batch:
            found["image"] = self._picture(batch[prefix + self.image], rngs=rngs)
        if prefix + self.title in batch:
            where = valid(batch, prefix + self.title)
            x = self.text_out(self.language(batch[prefix + self.title], where=where, rngs=rngs))
            found["text"] = unit(x), where.any(axis=1)
        if len(found) == 2:
            (i, seen), (t, read) = found["image"], found["text"]
            there = seen | read
            fused = self.fuse(jnp.concatenate([i, t], axis=1), rngs=rngs)
            found["fused"] = jnp.where(there[:, None], unit(fused), 0), there
        return found

    def _picture(self, images: jax.Array, *, rngs: nnx.Rngs | None) -> Vector:
        there = jnp.any(images != 0, axis=(1, 2, 3))
        return jnp.where(there[:, None], unit(self.image_out(self.vision(images, rngs=rngs))), 0), there

    def _told(self, batch: Batch, *, rngs: nnx.Rngs) -> Float[Array, ""]:
        """The loss of the tokens hidden from a second look at the title; the table of words is that of the answers."""
        ids, where, table = batch[self.title], valid(batch, self.title), self.language.tokens
        shown, hidden = hide(ids, where=where, share=self.masked, size=table.size, rngs=rngs)
        states = gelu(self.tell(self.language.states(shown, where=where, rngs=rngs)), kind="tanh")
        return told(states @ table.rows().T, ids=ids, hidden=hidden)
