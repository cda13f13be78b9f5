"""What an index should answer: a dictionary of items, searched by comparing all."""

import numpy as np

from serve.index.live import LiveIndex

DIM = 4


class Items:
    def __init__(self):
        self.vectors, self.attributes = {}, {}

    def upsert(self, ids, vectors, attributes=None):
        for place, (item, vector) in enumerate(zip(ids, vectors, strict=True)):
            self.vectors[item] = vector
            had = self.attributes.get(item, {"shop": None, "price": None})
            given = {name: column[place] for name, column in (attributes or {}).items()}
            self.attributes[item] = {**had, **given}

    def delete(self, ids):
        for item in ids:
            self.vectors.pop(item, None)
            self.attributes.pop(item, None)

    def search(self, query, *, k, accepts=lambda attributes: True):
        """Id and score of the k best."""
        kept = [item for item in self.vectors if accepts(self.attributes[item])]
        scores = np.array([query @ self.vectors[item] for item in kept], np.float32)
        order = np.argsort(-scores, kind="stable")[:k]
        return [kept[at] for at in order], scores[order]


def assert_agree(index: LiveIndex, items: Items, queries, *, k, where=None, accepts=lambda attributes: True):
    """The index finds what the items hold: no more, no less, in this order."""
    assert len(index) == len(items.vectors)
    found, scores = index.search(queries, k=k, where=where)
    assert found.shape == scores.shape == (len(queries), k)
    for ids, theirs, query in zip(found, scores, queries, strict=True):
        wanted, best = items.search(query, k=k, accepts=accepts)
        there = theirs > -np.inf
        assert there.sum() == len(wanted)
        assert not there[len(wanted) :].any()
        np.testing.assert_allclose(theirs[there], best, rtol=1e-4, atol=1e-5)
        assert ids[there].tolist() == wanted
