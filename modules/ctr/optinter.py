"""OptInter: memorize, factorize or ignore each pair of fields.

Lyu et al., "Memorize, Factorize, or be Naïve: Learning Optimal Feature Interaction Methods for CTR Prediction", ICDE
2022. Search: each pair of fields is represented by o = Σ_k softmax(α / τ)_k o_k over its embedded cross product m_ij
(memorize), the product f_i ⊙ f_j of factors (factorize) and nothing (naïve), with a temperature τ that falls. Retrain:
each pair keeps the method of its largest α, from scratch. All e_i and o_ij enter one MLP. The text speaks of
Gumbel-softmax; the authors' code draws no noise, and neither does this.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs
from modules.layers.crosses import CrossTable
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP

Method = Literal["memorize", "factorize", "naive"]
METHODS: tuple[Method, ...] = ("memorize", "factorize", "naive")
Pair = tuple[str, str]


@chz.chz
class OptInter(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    fields: tuple[str, ...] = chz.field(default=(), doc="features whose pairs interact; default: all single ids")
    choice: Literal["search", "memorize", "factorize", "naive"] = chz.field(
        default="search", doc="search: the mixture; else one method for every pair"
    )
    assignment: str | None = chz.field(
        default=None, doc="JSON file of each pair's method, as the stage ChooseInteractions writes it; overrides choice"
    )
    cross_dim: int = chz.field(default=8, doc="width of a pair's vector")
    cross_rows: int = chz.field(
        default=1 << 16, doc="most rows of one pair's cross table; pairs of more combinations are hashed into so many"
    )
    cross_std: float = chz.field(default=1e-2, doc="standard deviation of cross rows at the start")
    factor_std: float = chz.field(
        default=0.3, doc="the same of factors; larger, since products of small numbers vanish and are never chosen"
    )
    l2: float = chz.field(default=0.0, doc="weight of the squares of the cross rows and factors that a batch reads")
    cooling: float = chz.field(default=5e-5, doc="fall of the temperature in a step; it starts at 1")
    coldest: float = chz.field(default=0.01, doc="temperature at which the fall ends")
    mlp: MLP = MLP(norm="layer")

    @chz.validate
    def _sizes_make_sense(self):
        if self.cross_rows < 1 or self.cross_dim < 1:
            raise ValueError("cross_rows and cross_dim are at least 1")
        if not 0 < self.coldest <= 1 or self.cooling < 0:
            raise ValueError("the temperature falls from 1: give coldest in (0, 1] and cooling of at least 0")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "OptInterModel":
        return OptInterModel(self, features=features, rngs=rngs)


class OptInterModel(Model):
    def __init__(self, config: OptInter, *, features: Features, rngs: nnx.Rngs):
        self.pairs = pairs_of(features, fields=config.fields)
        self.searches = config.choice == "search" and config.assignment is None
        memorized, factorized = self._methods(config)
        self.l2, self.cooling, self.coldest = config.l2, config.cooling, config.coldest
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.factorized = factorized
        self.crosses = self._crosses(config, pairs=memorized, features=features, rngs=rngs)
        self.factors = self._factors(config, pairs=factorized, features=features, rngs=rngs)
        if self.searches:
            self.alpha = nnx.Param(nnx.initializers.xavier_normal()(rngs.params(), (len(self.pairs), len(METHODS))))
            self.steps = nnx.BatchStat(jnp.zeros(()))
        vectors = len(self.pairs) if self.searches else len(memorized) + len(factorized)
        self.mlp = config.mlp.make(self.embed.width() + vectors * config.cross_dim, outputs=1, rngs=rngs)

    def _methods(self, config: OptInter) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """Pairs that need a cross table and pairs that need factors: at retraining each has what it was given."""
        if self.searches:
            return self.pairs, self.pairs
        given: dict = dict.fromkeys(self.pairs, config.choice)
        if config.assignment is not None:
            given = read_assignment(config.assignment, pairs=self.pairs)
        return (
            tuple(p for p in self.pairs if given[p] == "memorize"),
            tuple(p for p in self.pairs if given[p] == "factorize"),
        )

    @staticmethod
    def _crosses(config: OptInter, *, pairs: tuple[Pair, ...], features: Features, rngs: nnx.Rngs) -> CrossTable | None:
        if not pairs:
            return None
        width, rows, std = config.cross_dim, config.cross_rows, config.cross_std
        return CrossTable(pairs, features=features, width=width, rows=rows, std=std, rngs=rngs)

    @staticmethod
    def _factors(
        config: OptInter, *, pairs: tuple[Pair, ...], features: Features, rngs: nnx.Rngs
    ) -> FeatureEmbedding | None:
        if not pairs:
            return None
        named = tuple(dict.fromkeys(name for pair in pairs for name in pair))
        options = _of_fields(config, features=features, names=named)
        return FeatureEmbedding(features.select(names=named), dim=config.cross_dim, options=options, rngs=rngs)

    def temperature(self) -> Float[Array, ""]:
        """τ = max(coldest, 1 - cooling * steps)."""
        return jnp.maximum(self.coldest, 1.0 - self.cooling * self.steps[...])

    def mixture(self) -> Float[Array, "p k"]:
        """softmax(α / τ): how much of each method each pair has."""
        return jax.nn.softmax(self.alpha[...].astype(jnp.float32) / self.temperature(), axis=-1)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        parts, squares = [self.embed.flat(batch)], jnp.zeros(())
        memories: list[jax.Array] = []
        products: list[jax.Array] = []
        if self.crosses is not None:
            memories = self.crosses(batch)
            squares += sum(jnp.square(m).sum(-1).mean() for m in memories)
        if self.factors is not None:
            factor = self.factors(batch)
            products = [factor[left] * factor[right] for left, right in self.factorized]
            squares += sum(jnp.square(f).sum(-1).mean() for f in factor.values())
        if self.searches:
            share = self.mixture().astype(parts[0].dtype)
            parts += [p[0] * m + p[1] * f for p, m, f in zip(share, memories, products, strict=True)]
        else:
            parts += memories + products
        outputs: Outputs = {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}
        if rngs is not None and self.searches:
            self.steps[...] = self.steps[...] + 1
        return {**outputs, AUX_LOSS + "l2": self.l2 * squares} if self.l2 else outputs


def pairs_of(features: Features, *, fields: tuple[str, ...] = ()) -> tuple[Pair, ...]:
    """The pairs that interact, in the order of α's rows."""
    chosen = fields or tuple(f.name for f in features.select(kinds=("categorical",)))
    for name in chosen:
        if features[name].kind != "categorical":
            raise ValueError(
                f"OptInter crosses single ids, and {name!r} is {features[name].kind}: leave it out of fields"
            )
    if len(chosen) < 2:
        raise ValueError(f"OptInter needs two features of single ids to cross; there is {', '.join(chosen) or 'none'}")
    return tuple(itertools.combinations(chosen, 2))


def read_assignment(path: str, *, pairs: tuple[Pair, ...]) -> dict[Pair, Method]:
    """Each pair's method from the file, which must know exactly these pairs."""
    if not Path(path).is_file():
        raise ValueError(f"assignment {path!r} is no file; the stage ChooseInteractions writes one")
    stored: Mapping[str, Method] = json.loads(Path(path).read_text())["pairs"]
    known = {f"{left} x {right}": (left, right) for left, right in pairs}
    if odd := sorted(set(stored) ^ set(known)):
        raise ValueError(f"assignment {path} and the model differ in pair {odd[0]!r}: search again with these features")
    if wrong := [m for m in stored.values() if m not in METHODS]:
        raise ValueError(f"assignment {path} holds method {wrong[0]!r}; there are {', '.join(METHODS)}")
    return {known[name]: method for name, method in stored.items()}


def assignment_of(alpha: Float[Array, "p k"], *, pairs: tuple[Pair, ...]) -> dict[str, Method]:
    """The method of the largest α of each pair, by the name that `read_assignment` knows."""
    best = jnp.argmax(jnp.asarray(alpha), axis=-1)
    return {f"{left} x {right}": METHODS[int(k)] for (left, right), k in zip(pairs, best, strict=True)}


def entropy(mixture: Float[Array, "p k"]) -> Float[Array, ""]:
    """Mean over pairs of the entropy of their methods, in nats: from log 3 towards 0 as the search decides."""
    return -(mixture * jnp.log(jnp.maximum(mixture, 1e-30))).sum(-1).mean()


def _of_fields(config: OptInter, *, features: Features, names: tuple[str, ...]) -> Embedding:
    """The embedding options as they concern these fields, with the factors' own scale and width."""
    known = {key for name in names for key in (name, features[name].table)}
    buckets = {name: rows for name, rows in config.embedding.hash_buckets.items() if name in known}
    return chz.replace(config.embedding, widths={}, hash_buckets=buckets, content={}, std=config.factor_std)
