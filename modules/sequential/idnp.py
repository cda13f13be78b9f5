"""IDNP: Interest Dynamics Modeling using Generative Neural Processes (Du et al., WSDM 2023, arXiv 2208.04600).

A person's interest is a random function of time, seen at a few short sequences. The history falls into windows of l
items, of which the newest is still without its last, the item to come. An attentive encoder reads a window at several
scales. Of a person's windows some are context C, others targets T, and a window's first l - 1 items ask for its last:

    r_d = attention of the asking window over C                         what is known, looked up
    q(z|S) = N(μ, σ²) of the mean of S, σ = .1 + .9 sigmoid(.)          what is not, drawn
    h = W [MLP([r_d; z; r_q]); e_u]                                     scores are h E^T

In training z is of q(z|C and T) and the loss has KL(q(z|C and T) || q(z|C)); to predict, all earlier windows are C, the
newest asks, and z is the mean. The parts are the paper's; its formulas were not at hand, so kernels over windows, σ's
bounds, the split of windows, the asking by all but the last item and the KL's weight are reconstructions.
"""

import math
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs, history_of_ids
from modules.layers.attention import HIDDEN, MultiHeadAttention
from modules.layers.dropout import Dropout
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.positions import Positions, mean_valid
from modules.layers.tokens import TokenEmbedding
from modules.losses.gaussian import gaussian_kl

LEAST = 0.1  # of σ
SHARES = (0.3, 0.7)  # of the windows that are context in training, from and to


@chz.chz
class IDNP(ModelConfig):
    """Outputs "hidden" [b,w,d] of the asking windows and "last", of the newest; in training "asked" [b,w], the item
    that a target window ends in, 0 where none is asked or it is yet to come, and the KL."""

    dim: int = 64
    window: int = chz.field(default=5, doc="l: items of a short sequence, the one asked for included")
    scales: int = chz.field(default=3, doc="items that a window is read by: one at a time, two, and so on")
    heads: int = 2
    paths: Literal["both", "deterministic", "latent"] = chz.field(
        default="both", doc="what is known of the context: attention to it, a Gaussian of it, or both"
    )
    kl: float = chz.field(
        default=0.1,
        doc="weight of the KL; the items' loss is a mean over windows, beside which 1 silences the latent path",
    )
    dropout: float = 0.2
    history: str = chz.field(default="history", doc="sequence of item ids")
    user: str | None = chz.field(default=None, doc="categorical feature of the person, e_u; None: unknown people alike")

    @chz.validate
    def _check(self) -> None:
        if self.window < 2 or not 0 < self.scales <= self.window:
            raise ValueError(
                f"window is {self.window}, scales {self.scales}; a window has two items, a scale fits in it"
            )

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "IDNPModel":
        return IDNPModel(self, features=features, rngs=rngs)


class IDNPModel(Model):
    def __init__(self, config: IDNP, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="IDNP")
        dim = config.dim
        self.config, self.scale = config, math.sqrt(dim)
        self.windows = -(-(history.max_len + 1) // config.window)
        self.item = TokenEmbedding(history.size, dim=dim, rngs=rngs)
        self.encoder = InterestEncoder(dim, window=config.window, scales=config.scales, rngs=rngs)
        self.times = Positions(self.windows, dim=dim, rngs=rngs)
        self.attention = MultiHeadAttention(dim, heads=config.heads, rngs=rngs) if config.paths != "latent" else None
        latent = config.paths != "deterministic"
        self.inner = MLP(widths=(dim,)).make(dim, rngs=rngs) if latent else None
        self.gaussian = Linear(dim, 2 * dim, rngs=rngs) if latent else None
        parts = 3 if config.paths == "both" else 2
        self.decoder = MLP(widths=(2 * dim,), dropout=config.dropout).make(parts * dim, outputs=dim, rngs=rngs)
        self.person = None if config.user is None else TokenEmbedding(features[config.user].size, dim=dim, rngs=rngs)
        self.out = Linear(dim if config.user is None else 2 * dim, dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config = self.config
        ids, held = self._windows(batch[config.history], batch[f"{config.history}/length"])
        x = self.dropout(self.item(ids) * self.scale, rngs=rngs)
        whole = self.times(self.encoder(x, where=held))  # r_i
        asks = self.times(self.encoder(x, where=held.at[:, :, -1].set(False)))  # r_q
        there = held.sum(axis=2) > 1  # something asks, and something is asked for
        there = there.at[:, -1].set(False)
        context = there if rngs is None else there & self._drawn(there, rngs=rngs)
        asks = asks if rngs is not None else asks[:, -1:]
        known = [asks]
        if self.attention is not None:
            seen = jnp.broadcast_to(context[:, None], (*asks.shape[:2], self.windows))
            known.append(self.attention(asks, memory=whole, mask=seen))
        outputs: Outputs = {}
        if self.inner is not None:
            latent, outputs = self._latent(self.inner(whole), context=context, there=there, rngs=rngs)
            known.append(jnp.broadcast_to(latent[:, None], asks.shape))
        hidden = self.decoder(jnp.concatenate(known, axis=-1), rngs=rngs)
        if self.person is not None and config.user is not None:
            person = self.person(batch[config.user])[:, None] * self.scale
            hidden = jnp.concatenate([hidden, jnp.broadcast_to(person, hidden.shape)], axis=-1)
        hidden = self.out(hidden)
        if rngs is not None:
            outputs["asked"] = jnp.where(there & ~context, ids[:, :, -1], 0)
        return {"hidden": hidden, "last": hidden[:, -1], "items": self.item.rows(), **outputs}

    def _windows(
        self, ids: Int[Array, "b t"], length: Int[Array, "b"]
    ) -> tuple[Int[Array, "b w l"], Bool[Array, "b w l"]]:
        """The history in windows that end where the item to come does, and which of their places hold something."""
        place = jnp.arange(-self.windows * self.config.window, 0)[None] + length[:, None] + 1
        held = (place >= 0) & (place < length[:, None])
        found = jnp.take_along_axis(ids, jnp.clip(place, 0, ids.shape[1] - 1), axis=1)
        shape = (-1, self.windows, self.config.window)
        return jnp.where(held, found, 0).reshape(shape), held.reshape(shape)

    def _drawn(self, there: Bool[Array, "b w"], *, rngs: nnx.Rngs) -> Bool[Array, "b w"]:
        """Lots for the context, of another share for each person."""
        low, high = SHARES
        share = jax.random.uniform(rngs.dropout(), (there.shape[0], 1), minval=low, maxval=high)
        return jax.random.uniform(rngs.dropout(), there.shape) < share

    def _latent(
        self,
        inner: Float[Array, "b w d"],
        *,
        context: Bool[Array, "b w"],
        there: Bool[Array, "b w"],
        rngs: nnx.Rngs | None,
    ) -> tuple[Float[Array, "b d"], Outputs]:
        """z, and in training the KL."""
        assert self.gaussian is not None

        def gaussian(where):
            mean, deviation = jnp.split(self.gaussian(mean_valid(inner, where=where)), 2, axis=-1)
            return mean, LEAST + (1 - LEAST) * jax.nn.sigmoid(deviation)

        of_mean, of_deviation = gaussian(context)
        if rngs is None:
            return of_mean, {}
        mean, deviation = gaussian(there)
        z = mean + deviation * jax.random.normal(rngs.dropout(), mean.shape, mean.dtype)
        kl = gaussian_kl(mean, deviation, of_mean=of_mean, of_deviation=of_deviation)
        return z, {f"{AUX_LOSS}kl": self.config.kl * jnp.mean(kl)}


class InterestEncoder(nnx.Module):
    """A window by several scales: kernels over 1, 2, ... items, attention over the places of each, then over scales."""

    def __init__(self, dim: int, *, window: int, scales: int, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(dim**-0.5)
        self.positions = Positions(window, dim=dim, rngs=rngs)
        self.kernels = nnx.List([Linear(n * dim, dim, rngs=rngs) for n in range(1, scales + 1)])
        self.places = nnx.Param(normal(rngs.params(), (scales, dim)))
        self.scales = nnx.Param(normal(rngs.params(), (dim,)))

    def __call__(self, x: Float[Array, "b w l d"], *, where: Bool[Array, "b w l"]) -> Float[Array, "b w d"]:
        """Zeros for a window that holds nothing."""
        x = jnp.where(where[..., None], x + self.positions.vectors[...][None, None], 0)
        back = [jnp.pad(x, ((0, 0), (0, 0), (n, 0), (0, 0)))[:, :, : x.shape[2]] for n in range(len(self.kernels))]
        found = []
        for n, kernel in enumerate(self.kernels):
            y = jax.nn.relu(kernel(jnp.concatenate(back[: n + 1], axis=-1)))
            weights = jax.nn.softmax(jnp.where(where, jnp.einsum("bwld,d->bwl", y, self.places[n]), HIDDEN))
            found.append(jnp.einsum("bwl,bwld->bwd", weights, y))
        scales = jnp.stack(found, axis=2)
        weights = jax.nn.softmax(jnp.einsum("bwsd,d->bws", scales, self.scales[...]))
        read = jnp.einsum("bws,bwsd->bwd", weights, scales)
        return jnp.where(where.any(axis=2)[..., None], read, 0)
