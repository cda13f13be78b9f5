"""The click law: what a user feels about an item at a moment, before any bias of exposure."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import Catalogue
from data.mall.rng import sigmoid
from data.mall.users import Users


def affinity(people: Users, *, shop: Catalogue, items: np.ndarray, now: np.ndarray, horizon: int):
    """Interest weight of each item's leaf [u, c] and agreement with the user's style wish in it [u, c].

    einsum, not matmul: BLAS sums in an order that depends on its threads, and equal seeds must give equal bytes.
    """
    leaf, weights = shop.leaf[items], people.weights(now, horizon=horizon)
    agree = np.einsum("ucd,ukd->kuc", shop.spu_style[shop.spu[items]], people.wish)
    weight, felt, known = np.zeros(items.shape, np.float32), np.zeros(items.shape, np.float32), 0
    for k in range(people.leaf.shape[1]):  # a loop over few interests is faster than sums over a short axis
        same = leaf == people.leaf[:, k, None]
        weight += same * weights[:, k, None]
        felt += same * agree[k]
        known = known + same
    return weight, felt / np.maximum(known, 1)


def relevance_logit(
    mall: Mall,
    *,
    shop: Catalogue,
    people: Users,
    items: np.ndarray,
    now: np.ndarray,
    session_leaf: np.ndarray,
    query_leaf: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """[u, c]; sigmoid of it is the true relevance."""
    taste = mall.taste
    weight, agree = affinity(people, shop=shop, items=items, now=now, horizon=mall.horizon)
    spu = shop.spu[items]
    leaf = shop.leaf[items]
    known = weight > 0
    liked = shop.spu_attributes[spu] == people.favourite[:, None, :]
    follows = (shop.successors[last, :1] == items) | (shop.successors[last, 1:] == items)
    apart = np.abs(shop.price_level[items] - people.price[:, None]) * people.thrift[:, None]
    return (
        taste.base
        + taste.interest * (known + 2.0 * weight)
        + taste.style * agree
        + taste.appeal * shop.spu_appeal[spu]
        + taste.quality * shop.spu_quality[spu]
        + taste.luck * shop.luck[items]
        - taste.price * (apart - 0.8)
        + taste.attributes * liked.sum(-1)
        + taste.session * (leaf == session_leaf[:, None])
        + taste.successor * follows
        + taste.novelty * ~known * people.novelty[:, None]
        - taste.query * ((query_leaf >= 0)[:, None] & (leaf != query_leaf[:, None]))
    )


def relevance(logit: np.ndarray) -> np.ndarray:
    return sigmoid(logit)


def auc(label: np.ndarray, *, score: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counted half."""
    values, rank = np.unique(score, return_inverse=True)
    negatives = np.bincount(rank[~label.astype(bool)], minlength=len(values)).astype(np.float64)
    positives = np.bincount(rank[label.astype(bool)], minlength=len(values)).astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    return float((positives * (below + 0.5 * negatives)).sum() / (positives.sum() * negatives.sum()))


def possible(label: np.ndarray, *, truth: np.ndarray) -> dict[str, float]:
    """What a model that knew every law would reach on these rows: no score beats it but by luck."""
    p = np.clip(truth.astype(np.float64), 1e-7, 1.0 - 1e-7)
    return {
        "auc": auc(label, score=truth),
        "logloss": float(-np.where(label, np.log(p), np.log1p(-p)).mean()),
        "expected_logloss": float(-(p * np.log(p) + (1.0 - p) * np.log1p(-p)).mean()),
    }
