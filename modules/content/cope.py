"""One space for a product's page, its short videos and its live streams.

COPE: Bai, Li, Cheng, Yang, Chen, Li, "Cross-Domain Product Representation Learning for Rich-Content E-Commerce",
ICCV 2023; `speech` adds what the authors' talk and code know as COPE 1.1, a text branch of videos and live streams.

A text encoder T and an encoder of frames G serve all domains; a page's picture is a clip of one frame. Each domain has
a head: h_t = W_t T(text), h_v = W_v G(frames), and with both h_f = W_f [h_t; h_v]. A part that is missing (a text
without words, a clip without frames, a picture of nothing but zeros) is zero in h_f; what has no part at all is zero.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.frames import Frames
from modules.encoders.text import TextEncoderConfig, TextTransformer
from modules.layers.linear import Linear
from modules.layers.similarity import unit
from modules.layers.tokens import TokenEmbedding

DOMAINS = ("page", "video", "live")


@chz.chz
class Cope(ModelConfig):
    """Outputs "<domain>_v", "<domain>_t" and "<domain>_f" of unit length, each with "<name>/known" [b], and under
    the domain's own name the vector to retrieve by: fused where the domain has texts. "classes" are the rows of a
    classifier of products."""

    dim: int = chz.field(default=128, doc="of the shared space")
    frames: Frames = chz.field(default_factory=Frames)
    language: TextEncoderConfig = chz.field(default_factory=TextTransformer, blueprint_unspecified=TextTransformer)
    image: str = chz.field(default="image", doc="feature with the page's picture")
    title: str = chz.field(default="title", doc="feature with the page's words")
    clips: tuple[str, str] = chz.field(default=("video", "live"), doc="features with frames")
    speech: tuple[str, str] | None = chz.field(
        default=None, doc="features with what is said in them, say video_text,live_text (COPE 1.1); None: frames alone"
    )
    classes: int = chz.field(default=0, doc="products that labels may name; 0: no classifier")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "CopeModel":
        return CopeModel(self, features=features, rngs=rngs)


class CopeModel(Model):
    def __init__(self, config: Cope, *, features: Features, rngs: nnx.Rngs):
        self.image_name = config.image
        self.texts = dict(zip(DOMAINS, (config.title, *(config.speech or ())), strict=False))
        self.clips = dict(zip(DOMAINS[1:], config.clips, strict=True))
        clips, texts = [features[n] for n in config.clips], [features[n] for n in self.texts.values()]
        shapes = {clip.shape for clip in clips} | {(clips[0].max_len, *features[config.image].shape)}
        if len(shapes) > 1 or len({text.size for text in texts}) > 1:
            raise ValueError(
                "COPE's domains share their encoders: give frames of one shape and number, a picture of that shape, "
                f"and texts of one vocabulary; got {sorted(shapes)} and {[text.size for text in texts]} tokens"
            )
        self.frames = config.frames.make(clips[0].shape, rngs=rngs)
        longest = max(text.max_len for text in texts)
        self.language = config.language.make(tokens=texts[0].size, length=longest, rngs=rngs)
        widths = {"v": self.frames.width, "t": self.language.width, "f": 2 * config.dim}
        self.heads = nnx.Dict(
            {
                f"{domain}_{part}": Linear(widths[part], config.dim, use_bias=False, rngs=rngs)
                for domain in DOMAINS
                for part in ("vtf" if domain in self.texts else "v")
            }
        )
        self.classes = TokenEmbedding(config.classes, dim=config.dim, rngs=rngs) if config.classes else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs: Outputs = {}
        for domain in DOMAINS:
            parts = self._parts(domain, batch, rngs=rngs)
            if parts:
                outputs |= self._domain(domain, parts)
        return outputs if self.classes is None else {**outputs, "classes": self.classes.table[...]}

    def _parts(
        self, domain: str, batch: Batch, *, rngs: nnx.Rngs | None
    ) -> dict[str, tuple[Float[Array, "b _"], Bool[Array, "b"]]]:
        """What the encoders say of a domain's parts that are in the batch, and in which rows they are there."""
        found = {}
        name = self.image_name if domain == "page" else self.clips[domain]
        if name in batch and domain == "page":
            there = jnp.any(batch[name] != 0, axis=(1, 2, 3))
            found["v"] = self.frames.image(batch[name], rngs=rngs), there
        elif name in batch:
            where = valid(batch, name)
            found["v"] = self.frames(batch[name], where=where, rngs=rngs), where.any(axis=1)
        text = self.texts.get(domain)
        if text is not None and text in batch:
            where = valid(batch, text)
            found["t"] = self.language(batch[text], where=where, rngs=rngs), where.any(axis=1)
        return found

    def _domain(self, domain: str, parts: dict[str, tuple[jax.Array, jax.Array]]) -> Outputs:
        projected = {
            part: jnp.where(there[:, None], self.heads[f"{domain}_{part}"](x), 0) for part, (x, there) in parts.items()
        }
        known = {part: there for part, (_, there) in parts.items()}
        if domain in self.texts:
            pair = [projected.get(part, jnp.zeros_like(next(iter(projected.values())))) for part in "tv"]
            projected["f"] = self.heads[f"{domain}_f"](jnp.concatenate(pair, axis=1))
            known["f"] = jnp.any(jnp.stack(list(known.values())), axis=0)
        outputs = {f"{domain}_{part}": unit(x) for part, x in projected.items()}
        outputs |= {f"{domain}_{part}/known": there for part, there in known.items()}
        best = "f" if domain in self.texts else "v"
        return {**outputs, domain: outputs[f"{domain}_{best}"], f"{domain}/known": known[best]}
