"""How much of the possible AUC can be read from a log? Boosted trees that know all items, and users by their log.

    python -m tests.benchmarks.reachable [--json FILE] [--rows 400000] [--actions 60]

The click law rests on latents of users and items. `possible` is the AUC of who knows both. The trees here are told the
items' true latents, but know a user by the last actions before the impression alone: counts, recency and agreement of
style in the leaf, prices, attributes, the session's likely leaf. So they show what a tower could reach that had learnt
everything about items and reads histories well. A few minutes on one core.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from data.mall.build import build
from data.mall.config import DAY, Mall
from data.mall.truth import auc

Rows = dict[str, np.ndarray]
USER_SHIFT = 33  # bits of a second
NEVER = 99.0
SESSION_SECONDS = 3 * 3600


class Reader:
    """Features of impressions from the actions before them."""

    def __init__(self, mall: Mall, *, actions: int):
        self.mall, self.actions, built = mall, actions, build(mall)
        self.shop, self.log = built.shop, built.log
        done = self.log.actions  # sorted by user, then time
        self._key = (done["user"].astype(np.int64) << USER_SHIFT) + done["time"]
        self._first = np.searchsorted(done["user"], np.arange(mall.n_users))

    def rows(self, split, *, limit: int | None = None) -> Rows:
        shown = self.log.impressions
        start, end = self.mall.period(split)
        keep = np.flatnonzero((shown["time"] >= start) & (shown["time"] < end))
        if limit is not None and len(keep) > limit:
            keep = np.sort(np.random.default_rng(0).choice(keep, limit, replace=False))
        return {name: column[keep] for name, column in shown.items()}

    def features(self, rows: Rows) -> np.ndarray:
        shop, item = self.shop, rows["item"]
        spu, leaf = shop.spu[item], shop.leaf[item]
        sums, last = self._past(rows, spu=spu, leaf=leaf)
        count, same = np.maximum(sums["count"], 1), np.maximum(sums["same"], 1)
        price = sums["price"] / count
        guess = np.where(rows["query"] >= 0, rows["query"], np.where(last["ago"] < SESSION_SECONDS, last["leaf"], -1))
        columns = [
            *sums.values(),
            sums["same"] / count,
            sums["agree"] / same,
            sums["recent_agree"] / np.maximum(sums["recent"], 1e-3),
            sums["leaves"] / count,
            price,
            np.abs(shop.price_level[item] - price),
            np.log1p(last["ago"]),
            last["leaf"] == leaf,
            (shop.successors[last["item"]] == item[:, None]).any(axis=1) & (last["item"] >= 0),
            guess == leaf,
            rows["query"] >= 0,
            rows["query"] == leaf,
            shop.spu_appeal[spu],
            shop.spu_quality[spu],
            shop.luck[item],
            shop.price_level[item],
            shop.weight[item],
            rows["slot"],
        ]
        return np.stack([np.asarray(c, np.float32) for c in columns], axis=1)

    def _past(self, rows: Rows, *, spu: np.ndarray, leaf: np.ndarray) -> tuple[Rows, Rows]:
        """Sums over the last actions of each row's user, and the last one."""
        shop, done, n = self.shop, self.log.actions, len(spu)
        newest = np.searchsorted(self._key, (rows["user"].astype(np.int64) << USER_SHIFT) + rows["time"]) - 1
        sums = {name: np.zeros(n) for name in ("count", "same", "top", "leaves", "product", "agree", "overall")}
        sums |= {name: np.zeros(n) for name in ("recent", "recent_agree", "price", "price_squared")}
        sums |= {f"attribute_{k}": np.zeros(n) for k in range(shop.spu_attributes.shape[1])}
        sums |= {"since": np.full(n, NEVER), "closest": np.full(n, -1.0)}
        seen, last = np.zeros((n, shop.leaves), bool), {}
        for back in range(self.actions):
            at = newest - back
            valid = at >= self._first[rows["user"]]
            at = np.where(valid, at, 0)
            item = done["item"][at]
            of, there, w = shop.spu[item], shop.leaf[item], valid.astype(np.float64)
            here = w * (there == leaf)
            agree = (shop.spu_style[of] * shop.spu_style[spu]).sum(-1)
            ago = (rows["time"] - done["time"][at]) / DAY
            fading = here * np.exp(-ago / 7)
            level = shop.price_level[item]
            new = valid & ~seen[np.arange(n), there]
            parts = {"count": w, "same": here, "top": w * (shop.leaf_top[there] == shop.leaf_top[leaf]), "leaves": new}
            parts |= {"product": w * (of == spu), "agree": here * agree, "overall": w * agree, "recent": fading}
            parts |= {"recent_agree": fading * agree, "price": w * level, "price_squared": w * level**2}
            for k in range(shop.spu_attributes.shape[1]):
                parts[f"attribute_{k}"] = w * (shop.spu_attributes[of, k] == shop.spu_attributes[spu, k])
            for name, part in parts.items():
                sums[name] += part
            sums["since"] = np.where((here > 0) & (sums["since"] == NEVER), back + 1, sums["since"])
            sums["closest"] = np.where(here > 0, np.maximum(sums["closest"], agree), sums["closest"])
            seen[np.flatnonzero(valid), there[valid]] = True
            if back == 0:
                last = {"item": np.where(valid, item, -1), "leaf": np.where(valid, there, -1)}
                last["ago"] = np.where(valid, ago * DAY, 1e9)
        return sums, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=400_000, help="training impressions")
    parser.add_argument("--actions", type=int, default=60, help="newest actions of a user")
    args = parser.parse_args()
    reader = Reader(Mall(), actions=args.actions)
    train, valid = reader.rows("train", limit=args.rows), reader.rows("valid")
    trees = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.06, min_samples_leaf=100, l2_regularization=1.0, random_state=0
    )
    trees.set_params(early_stopping=False).fit(reader.features(train), train["click"])
    scores = trees.predict_proba(reader.features(valid))[:, 1]
    out = {
        "benchmark": "reachable",
        "rows": len(train["click"]),
        "actions": args.actions,
        "auc": round(auc(valid["click"], score=scores), 4),
        "possible": round(auc(valid["click"], score=valid["true_ctr"]), 4),
    }
    print(json.dumps(out, indent=1))
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
