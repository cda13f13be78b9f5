"""VED: pictures encoded without and with clicks, and a network in the click tower that takes popularity back out.

Si Chen, Lin, Guan et al., "Visual Encoding and Debiasing for CTR Prediction", CIKM 2022, arXiv 2205.04168. Its formulas
are not public; these are a reconstruction.

S1  two views of any picture of the catalogue, which no exposure has chosen, are positives (`VisualEncoder`).
S2  so are the photo of a search and a picture clicked for it; the task draws negatives from a category-aware pool.
S3  in the tower, v' = v + g(v) for the frozen vector v of an item; g is an MLP whose last layer starts at zero.
    A much-shown item h is drawn to the little-shown item l* of its category that is most like it by S1:
    L_deb = -log exp(s(v'_h, v'_l*)/τ) / Σ_l exp(s(v'_h, v'_l)/τ), over the little-shown l of the batch (`VedTower`).
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs
from modules.encoders.vision import ConvNet, ImageEncoder
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.similarity import unit
from modules.losses.pool import pool_contrastive


@chz.chz
class VisualEncoder(ModelConfig):
    """Outputs "query" of the picture at hand, "item" of the one clicked for it, "view_a" and "view_b", each with
    "<name>/known" [b]; a picture of nothing but zeros, as one that cannot be decoded is, has the zero vector."""

    dim: int = chz.field(default=32, doc="of the vectors")
    vision: ImageEncoder = chz.field(default_factory=ConvNet, blueprint_unspecified=ConvNet)
    image: str = chz.field(default="image", doc="feature with the picture at hand")
    clicked: str = chz.field(default="offer_image", doc="feature with the picture clicked for it")
    views: tuple[str, str] = chz.field(default=("view_a", "view_b"), doc="features with two views of some picture")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "VisualEncoderModel":
        return VisualEncoderModel(self, features=features, rngs=rngs)


class VisualEncoderModel(Model):
    def __init__(self, config: VisualEncoder, *, features: Features, rngs: nnx.Rngs):
        image = features[config.image]
        if image.kind != "image":
            raise ValueError(f"VisualEncoder needs a picture; {config.image!r} is {image.kind}")
        self.outputs = dict(
            zip((config.image, config.clicked, *config.views), ("query", "item", "view_a", "view_b"), strict=True)
        )
        self.vision = config.vision.make(image.shape, rngs=rngs)
        self.head = Linear(self.vision.width, config.dim, use_bias=False, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs: Outputs = {}
        for feature, name in self.outputs.items():
            if feature in batch:
                known = jnp.any(batch[feature] != 0, axis=(1, 2, 3))
                vectors = unit(self.head(self.vision(batch[feature], rngs=rngs)))
                outputs |= {name: jnp.where(known[:, None], vectors, 0), f"{name}/known": known}
        return outputs


@chz.chz
class VedTower(ModelConfig):
    """A tower on fields, the item's vector v', the photo's q, and q ⊙ v'. Training adds "aux_loss/debias"."""

    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    mlp: MLP = MLP(widths=(128, 64))
    content: str = chz.field(default="content", doc="feature with the item's vector")
    asked: str = chz.field(default="query_content", doc="feature with the photo's vector, of the same encoder")
    anchor: str | None = chz.field(
        default=None, doc="feature with the item's S1 vector, to choose l* by; None: v itself"
    )
    exposure: str = chz.field(default="exposure", doc="feature with the share of items that are shown less, 0 to 1")
    category: str = chz.field(default="category", doc="feature within which l* is sought")
    item: str = chz.field(default="item", doc="feature with the item's id: an item is no negative of itself")
    debias: float = chz.field(default=0.1, doc="weight of L_deb; 0: no debiasing network, v' = v")
    hidden: int = chz.field(default=32, doc="width of g's hidden layer")
    temperature: float = chz.field(default=0.1, doc="τ of L_deb")
    high: float = chz.field(default=0.8, doc="exposure from which an item is much shown")
    low: float = chz.field(default=0.5, doc="exposure up to which it is little shown")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "VedTowerModel":
        return VedTowerModel(self, features=features, rngs=rngs)


class VedTowerModel(Model):
    def __init__(self, config: VedTower, *, features: Features, rngs: nnx.Rngs):
        vectors = [n for n in (config.content, config.asked, config.anchor) if n is not None]
        if missing := [n for n in (*vectors, config.exposure) if n not in features]:
            raise ValueError(
                f"VedTower reads {', '.join(missing)}, which the source lacks: give it vectors (content=...)"
            )
        width = features[config.content].shape[-1]
        if features[config.asked].shape[-1] != width:
            raise ValueError(f"{config.content!r} and {config.asked!r} are not vectors of one encoder")
        self.config = config
        fields = features.select(names=tuple(f.name for f in features if f.name not in (*vectors, config.exposure)))
        self.embed = FeatureEmbedding(fields, dim=config.dim, options=config.embedding, rngs=rngs)
        self.mlp = config.mlp.make(self.embed.width() + 3 * width, outputs=1, rngs=rngs)
        self.debias = Debias(width, hidden=config.hidden, rngs=rngs) if config.debias else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config = self.config
        asked, vector = (jax.lax.stop_gradient(batch[n]) for n in (config.asked, config.content))
        corrected = vector if self.debias is None else self.debias(vector)
        parts = [self.embed.flat(batch), corrected, asked, asked * corrected]
        outputs: Outputs = {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}
        if self.debias is not None and rngs is not None:
            outputs[f"{AUX_LOSS}debias"] = config.debias * self._alignment(corrected, batch)
        return outputs

    def _alignment(self, corrected: Float[Array, "b d"], batch: Batch) -> Float[Array, ""]:
        config, exposure, item = self.config, batch[self.config.exposure], batch[self.config.item]
        nearest, found = most_alike(
            unit(jax.lax.stop_gradient(batch[config.anchor or config.content])),
            high=exposure >= config.high,
            low=exposure <= config.low,
            category=batch[config.category],
        )
        positive = jnp.arange(len(item))[None] == nearest[:, None]
        others = (exposure <= config.low)[None] & (item[None] != item[nearest][:, None])
        v = unit(corrected)
        return pool_contrastive(v, v, positive=positive, pool=others, temperature=config.temperature, where=found)


class Debias(nnx.Module):
    """v + g(v), at the start the identity."""

    def __init__(self, width: int, *, hidden: int, rngs: nnx.Rngs):
        self.up = Linear(width, hidden, rngs=rngs)
        self.down = Linear(hidden, width, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, v: Float[Array, "b d"]) -> Float[Array, "b d"]:
        return v + self.down(jax.nn.relu(self.up(v)))


def most_alike(
    v: Float[Array, "b d"], *, high: Bool[Array, "b"], low: Bool[Array, "b"], category: Array
) -> tuple[Array, Bool[Array, "b"]]:
    """For each row of `high` the row of `low` of its category with the largest cosine, and whether there is one."""
    allowed = high[:, None] & low[None] & (category[:, None] == category[None])
    cosine = jnp.where(allowed, jnp.einsum("hd,ld->hl", v, v), -jnp.inf)
    return jnp.argmax(cosine, axis=1), allowed.any(axis=1)
