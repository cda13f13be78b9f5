"""Spherical k-means on planted directions, and where there are too few rows."""

import numpy as np
import pytest

from modules.layers.kmeans import spherical_kmeans, unit


def test_kmeans_finds_planted_directions_and_leaves_no_cluster_empty(rng):
    centres = unit(rng.normal(size=(6, 8)))
    truth = np.repeat(np.arange(6), 20)
    x = centres[truth] * rng.uniform(0.5, 4, (120, 1)) + 0.05 * rng.normal(size=(120, 8))
    label, found = spherical_kmeans(x, clusters=6)
    assert len({(t, c) for t, c in zip(truth, label, strict=True)}) == 6
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_allclose(found[label[0]], unit(unit(x[truth == 0]).sum(0, keepdims=True))[0])
    same, _ = spherical_kmeans(np.ones((5, 2)), clusters=3)
    assert set(same) == {0, 1, 2}
    with pytest.raises(ValueError, match="do not make"):
        spherical_kmeans(x[:3], clusters=4)
