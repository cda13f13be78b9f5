"""Listings without a picture or without a title, completed: how right the filling is, and what a recommender gains."""

from pathlib import Path
from typing import Literal

import chz
import jax.numpy as jnp
import numpy as np

from data.features import FIRST
from data.mall.config import Mall
from data.mall.halves import PARTS, Half, halves, lacking, patches
from data.mall.latents import ATTRIBUTES
from data.mall.shoppers import MallShoppers
from data.mall.sources import MallProducts
from data.mall.views.words import FORMS, lexicon
from data.pipeline import VALID
from data.vectors import unit
from modules.content.completion import fill, nearest
from train.evaluators import RankTally
from train.metrics.ranking import Recall
from train.metrics.ranks import padded, positions, rank_blocks
from train.pipeline import Results, Say, Stage
from train.recommend import RecommendVideos, tastes
from train.stored import predictions

Method = Literal["zero", "mean", "retrieval", "generated", "truth"]
NAMED = ("leaf", "brand", "quality", "theme", *ATTRIBUTES)
DRAWS = 200  # of the bootstrap


@chz.chz
class Complete(Stage):
    """Hides the picture of some listings and the title of others, fills them, and measures

    "title/f1": the words that say what a listing is, as many as titles have on average, against the hidden title's;
    "image/mse": patches' mean colours against the hidden picture's; "<part>/cosine": filled against hidden vectors;
    "recall@20": the next click, by the mean of what people looked at, over the completed vectors, and
    "no_image/recall@20": over the titles' vectors alone, what survives where no listing has a picture.
    Figures that are means have "/low" and "/high", 95 % by bootstrap.
    """

    of: str = chz.field(doc="file of vectors, picture then title end to end, such as @items/vectors.npz")
    mall: Mall = chz.field(default_factory=Mall)
    method: Method = "retrieval"
    missing: float = chz.field(default=0.3, doc="share of the listings that lack a part, one half each")
    neighbours: int = 10
    temperature: float = 0.05
    captioner: str | None = chz.field(default=None, doc="workdir that tells titles, for method=generated")
    painter: str | None = chz.field(default=None, doc="workdir that paints pictures, for method=generated")
    seed: int = 0

    @chz.validate
    def _check(self) -> None:
        if self.method == "generated" and (self.captioner is None or self.painter is None):
            raise ValueError(
                "method=generated needs a captioner and a painter, workdirs such as @captioner and @painter"
            )
        if not 0 < self.missing < 1 or self.neighbours < 1 or self.temperature <= 0:
            raise ValueError("missing lies between 0 and 1; neighbours and temperature are above 0")

    def run(self, *, out: Path, say: Say) -> Results:
        mall, products = self.mall, MallProducts(mall=self.mall).make()
        vectors = halves(self.of, mall=mall)
        rows = products.take(np.arange(len(products)))
        lacks = lacking(len(products), missing=self.missing, seed=self.seed)
        content = {"image": patches(rows["image"]), "title": words(mall, rows["title"])}
        known = ~lacks["image"] & ~lacks["title"]
        results: Results = {}
        filled = {part: vectors[part].copy() for part in PARTS}
        for part, other in (PARTS, PARTS[::-1]):
            hidden = lacks[part]
            whole, keys = np.concatenate([vectors[part], content[part]], axis=1), vectors[other]
            if self.method == "generated":
                guess = self._generate(part, present=keys[hidden])
            else:
                guess = self._fill(keys[hidden], keys=keys[known], values=whole[known], truth=whole[hidden])
            vector, made = np.split(guess, [vectors[part].shape[1]], axis=1)
            filled[part][hidden] = vector
            cosine = np.einsum("nd,nd->n", unit(vector), unit(vectors[part][hidden]))
            results |= self._interval(f"{part}/cosine", cosine)
            if part == "title":
                said = content["title"][known].sum(axis=1).mean()
                results |= self._interval("title/f1", f1(made, content["title"][hidden], count=round(said)))
            else:
                results |= self._interval("image/mse", np.square(made - content["image"][hidden]).mean(axis=1))
        results |= self._recommend("", np.concatenate([unit(filled[part]) for part in PARTS], axis=1))
        results |= self._recommend("no_image/", unit(filled["title"]))
        say(", ".join(f"{name} {value:.4f}" for name, value in results.items() if name.count("/") < 2))
        return results

    def _fill(self, present: np.ndarray, *, keys: np.ndarray, values: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if self.method == "zero":
            return np.zeros_like(truth)
        if self.method == "truth":
            return truth
        if self.method == "mean":
            return np.broadcast_to(values.mean(axis=0), truth.shape)
        which, weight = nearest(
            jnp.asarray(present, jnp.float32),
            keys=jnp.asarray(keys, jnp.float32),
            count=self.neighbours,
            temperature=self.temperature,
        )
        return np.asarray(fill(which, weight, values=jnp.asarray(values, jnp.float32)), np.float64)

    def _generate(self, part: Half, *, present: np.ndarray) -> np.ndarray:
        """Vector and content, as `MallHalves` had them for training."""
        workdir = self.captioner if part == "title" else self.painter
        found = predictions(Path(str(workdir)), rows={"present": unit(present).astype(np.float32)})
        content = words(self.mall, found["said"]) if part == "title" else found["painted"]
        return np.concatenate([found["vector"], content], axis=1).astype(np.float64)

    def _recommend(self, prefix: str, items: np.ndarray) -> Results:
        source = MallShoppers(mall=self.mall)
        rows = source.make()
        batch = {**rows.columns, VALID: np.ones(len(rows), bool)}
        key = FIRST + np.arange(self.mall.n_items)
        by = RecommendVideos(source=source, items=source, videos=source, metrics=(Recall(ks=(20,)),))
        people = tastes(by, batch, key=key, items=items)
        wanted = positions(padded(batch, "item"), key)
        tally, ranks = RankTally(by), []
        for part, found in rank_blocks(people, items, wanted, forbidden=None, k=20):
            tally.update(found, {VALID: batch[VALID][part]}, catalogue=len(items))
            ranks.append(found.rank[:, 0])
        return self._interval(f"{prefix}recall@20", np.concatenate(ranks) <= 20)

    def _interval(self, name: str, values: np.ndarray) -> Results:
        values, rng = np.asarray(values, np.float64), np.random.default_rng(self.seed)
        means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
        low, high = np.quantile(means, [0.025, 0.975])
        return {name: float(values.mean()), f"{name}/low": float(low), f"{name}/high": float(high)}


def words(mall: Mall, titles: np.ndarray) -> np.ndarray:
    """[n, concepts]: 1 where a title names it, in whatever language, synonym or spelling."""
    known = lexicon(mall)
    telling = np.logical_or.reduce([known.means(titles, kind=kind) >= 0 for kind in NAMED])
    concept = np.where(telling, (titles - FIRST) % known.size // FORMS, 0)
    bag = np.zeros((len(titles), known.size // FORMS + 1))
    np.maximum.at(bag, (np.arange(len(titles))[:, None], concept), telling.astype(float))
    return bag


def f1(guess: np.ndarray, truth: np.ndarray, *, count: int) -> np.ndarray:
    """Of the `count` likeliest concepts of each row, those of no likelihood left out, against the true set."""
    order = np.argsort(-guess, axis=1, kind="stable")[:, :count]
    chosen = np.take_along_axis(guess, order, axis=1) > 0
    right = (np.take_along_axis(truth, order, axis=1) * chosen).sum(axis=1)
    return 2 * right / np.maximum(chosen.sum(axis=1) + truth.sum(axis=1), 1)
