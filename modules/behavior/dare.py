"""DARE: Decoupled Attention and Representation Embeddings.

Feng et al., "Long-Sequence Recommendation Models Need Decoupled Embeddings", ICLR 2025. Section 4: one set of tables
says which behaviours matter, s_i = ⟨e_i^A, v^A⟩/√|e^A|, another what they say, h = Σ_i w_i (e_i^R ⊙ v^R) with w the
softmax of s over the K behaviours of highest s. The search for these K reads the attention tables alone, which may be
narrow; rows of the representation tables are read for the survivors.
"""

import functools
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from modules.base import AUX_LOGIT, Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.attend import attention_scores, normalised, weighted_sum
from modules.layers.behaviours import Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP, linear
from modules.layers.temporal import TemporalEncoding, TimeGaps, check_lengths, without_gaps


@chz.chz
class DARE(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field in the representation tables")
    attention_dim: int = chz.field(default=16, doc="embedding width of a field in the attention tables")
    embedding: Embedding = chz.field(default=Embedding(), doc="of the representation tables, and of shared ones")
    attention_embedding: Embedding = chz.field(default=Embedding(), doc="of the attention tables")
    tables: Literal["decoupled", "projected", "shared"] = chz.field(
        default="decoupled",
        doc="projected: one set of tables, linear maps to attention_dim for the search; shared: one set as it is",
    )
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    keep: int | None = chz.field(default=20, doc="behaviours that survive the search; None: all")
    positions: bool = chz.field(default=True, doc="both sets also say how long ago a behaviour was")
    gaps: TimeGaps | None = chz.field(
        default=None, blueprint_unspecified=TimeGaps, doc="encode buckets of elapsed time; default: ranks"
    )
    product: bool = chz.field(default=True, doc="target-aware representation: also feed interest ⊙ target")
    auxiliary: bool = chz.field(
        default=True, doc="a second head learns from the whole history, so that what is not kept has gradients too"
    )
    auxiliary_mlp: MLP = MLP(widths=(200,), activation="prelu")
    mlp: MLP = MLP(widths=(200, 80), activation="prelu")

    @chz.validate
    def _something_is_kept(self):
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}; keep at least 1 behaviour, or None for all")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DAREModel":
        return DAREModel(self, features=features, rngs=rngs)


class DAREModel(Model):
    def __init__(self, config: DARE, *, features: Features, rngs: nnx.Rngs):
        self.keep, self.product = config.keep, config.product
        inputs = without_gaps(features, gaps=config.gaps)
        self.embed = FeatureEmbedding(inputs, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=inputs, embed=self.embed, joint=config.joint)
        lengths, widths = self.behaviours.lengths, self.behaviours.widths
        check_lengths(lengths, features=features, gaps=config.gaps)
        self.times = times(config, dim=config.dim, lengths=lengths, std=config.embedding.std, rngs=rngs)
        if config.positions:
            widths = tuple(w + config.dim for w in widths)
        self.search = Search(config, features=inputs, behaviours=self.behaviours, widths=widths, rngs=rngs)
        interests = sum(widths) * (2 if config.product else 1)
        self.mlp = config.mlp.make(self.embed.width(*self.behaviours.others) + interests, outputs=1, rngs=rngs)
        searched = config.keep is not None and config.keep < max(lengths)
        self.auxiliary = (
            config.auxiliary_mlp.make(interests, outputs=1, rngs=rngs) if config.auxiliary and searched else None
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch, names=self.behaviours.others)
        others = self.embed.pool_sequences(vectors, batch=batch)
        kept, whole = [], []
        for group, (scores, mask) in enumerate(self.scores(batch)):
            target = side_by_side([vectors[t] for _, t in self.behaviours.groups[group]])
            interest = functools.partial(self._interest, group, mask=mask, target=target, batch=batch)
            searched = self.keep is not None and self.keep < scores.shape[1]
            parts = interest(*top(scores, mask=mask, keep=self.keep or 0)) if searched else interest(scores)
            kept += parts
            if self.auxiliary is not None and rngs is not None:
                whole += interest(scores) if searched else parts
        outputs = {"logit": self.mlp(side_by_side([*others.values(), *kept]), rngs=rngs)[:, 0]}
        if whole:
            outputs[f"{AUX_LOGIT}whole_history"] = self.auxiliary(side_by_side(whole), rngs=rngs)[:, 0]
        return outputs

    def scores(self, batch: Batch) -> list[tuple[Float[Array, "b t"], Bool[Array, "u t"]]]:
        """The search: s_i of every behaviour, and which positions hold one; an entry per list of behaviours."""
        return self.search(batch, embed=self.embed, times=self.times)

    def _interest(
        self,
        group: int,
        scores: Float[Array, "b k"],
        index: Int[Array, "b k"] | None = None,
        *,
        mask: Bool[Array, "u t"],
        target: Float[Array, "b d"],
        batch: Batch,
    ) -> list[Float[Array, "b e"]]:
        """Σ_i w_i e_i^R and its product with the target, over the behaviours at `index` or over all."""
        time = self.times[group] if self.times else None
        history, target = in_time(
            self._history(group, index=index, batch=batch),
            target=target,
            time=time,
            mask=mask,
            index=index,
            batch=batch,
        )
        weights = normalised(scores, mask=mask if index is None else pick(mask, index=index))
        pooled = weighted_sum(weights, values=history)
        return [pooled, pooled * target] if self.product else [pooled]

    def _history(self, group: int, *, index: Int[Array, "b k"] | None, batch: Batch) -> Float[Array, "u k d"]:
        """Representations of behaviours. Ids are picked before rows are read, so that survivors alone are read."""
        names = tuple(history for history, _ in self.behaviours.groups[group])
        if index is None:
            return jnp.concatenate(list(self.embed(batch, names=names).values()), axis=-1)
        full = jnp.full(index.shape[:1], index.shape[1], jnp.int32)
        survivors = {n: pick(batch[n], index=index) for n in names} | {f"{n}/length": full for n in names}
        vectors = self.embed(survivors, names=names)
        there = {n: pick(valid(batch, n), index=index)[..., None] for n in names}
        return jnp.concatenate([v * there[n].astype(v.dtype) for n, v in vectors.items()], axis=-1)


class Search(nnx.Module):
    """The first stage, which alone touches the whole history."""

    def __init__(
        self, config: DARE, *, features: Features, behaviours: Behaviours, widths: tuple[int, ...], rngs: nnx.Rngs
    ):
        self.behaviours = behaviours
        self.names = tuple(dict.fromkeys(name for group in behaviours.groups for pair in group for name in pair))
        self.times: nnx.List = nnx.List()
        self.queries: nnx.List = nnx.List()
        self.keys: nnx.List = nnx.List()
        embed = None
        if config.tables == "decoupled":
            dim, options = config.attention_dim, config.attention_embedding
            embed = FeatureEmbedding(features.select(names=self.names), dim=dim, options=options, rngs=rngs)
            self.times = times(config, dim=dim, lengths=behaviours.lengths, std=options.std, rngs=rngs)
        self.embed = embed
        if config.tables == "projected":
            for width, group in zip(widths, behaviours.groups, strict=True):
                out = config.attention_dim * (len(group) + config.positions)
                self.queries.append(linear(width, outputs=out, bias=False, rngs=rngs))
                self.keys.append(linear(width, outputs=out, bias=False, rngs=rngs))

    def __call__(
        self, batch: Batch, *, embed: FeatureEmbedding, times: nnx.List
    ) -> list[tuple[Float[Array, "b t"], Bool[Array, "u t"]]]:
        """`embed` and `times` are the representation's, for a search that has none of its own."""
        embed, times = (embed, times) if self.embed is None else (self.embed, self.times)
        out = []
        for i, b in enumerate(self.behaviours.read(embed(batch, names=self.names), batch=batch)):
            time = times[i] if times else None
            keys, query = in_time(b.history, target=b.target, time=time, mask=b.mask, batch=batch)
            if self.keys:
                keys, query = self.keys[i](keys), self.queries[i](query)
            out.append((attention_scores(query, keys=keys), b.mask))
        return out


def times(config: DARE, *, dim: int, lengths: tuple[int, ...], std: float, rngs: nnx.Rngs) -> nnx.List:
    lengths = lengths if config.positions else ()
    return nnx.List([TemporalEncoding(n, dim=dim, gaps=config.gaps, std=std, rngs=rngs) for n in lengths])


def in_time(
    history: Float[Array, "u k d"],
    *,
    target: Float[Array, "b d"],
    time: TemporalEncoding | None,
    mask: Bool[Array, "u t"],
    batch: Batch,
    index: Int[Array, "b k"] | None = None,
) -> tuple[Float[Array, "u k e"], Float[Array, "b e"]]:
    """History and target with their temporal encodings beside them."""
    if time is None:
        return history, target
    distances = time.distances(mask, batch=batch)
    distances = distances if index is None else pick(distances, index=index)
    return jnp.concatenate([history, time(distances)], axis=-1), side_by_side([target, time.target])


def top(
    scores: Float[Array, "b t"], *, mask: Bool[Array, "u t"], keep: int
) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
    """The highest scores and where they stand; padding comes last."""
    best, index = jax.lax.top_k(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), keep)
    return best, index


def pick(x: Shaped[Array, "u t *d"], *, index: Int[Array, "b k"]) -> Shaped[Array, "b k *d"]:
    """x[b, index[b, k]]; one history may serve every row."""
    if x.shape[0] == 1:
        return x[0][index]
    return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)
