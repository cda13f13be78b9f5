"""Ordered outcomes: the likelihood written plainly, and PRESTO's estimator at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from modules.losses.ordinal import ordinal_nll, slopes, smooth_absolute
from modules.losses.presto import CLIP, OrdinalFit, fit_ordinal, fit_path, gradient


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(n=600, seed=0):
    """Three boundaries whose slopes differ in the second covariate."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 3))
    beta = np.array([[0.8, 0.0, -0.5], [0.8, 0.6, -0.5], [0.8, 0.6, 0.2]])
    cumulative = sigmoid(np.array([-0.5, 0.9, 2.4]) + x @ beta.T)
    return x, (rng.random(n)[:, None] > cumulative).sum(1), cumulative


def plain_nll(alpha, beta, x, y):
    total = 0.0
    for row, c in zip(x, y, strict=True):
        upper = sigmoid(alpha[c] + row @ beta[c]) if c < len(alpha) else 1.0
        lower = sigmoid(alpha[c - 1] + row @ beta[c - 1]) if c else 0.0
        total -= np.log(max(upper - lower, CLIP))
    return total / len(y)


def test_the_likelihood_is_that_of_its_class():
    x, y, _ = drawn(40)
    alpha, beta = np.array([-1.0, 0.4, 1.5]), np.random.default_rng(1).normal(size=(3, 3)) * 0.3
    found = ordinal_nll(jnp.asarray(alpha + x @ beta.T), jnp.asarray(y)).mean()
    assert float(found) == pytest.approx(plain_nll(alpha, beta, x, y), rel=1e-5)
    np.testing.assert_allclose(slopes(jnp.asarray(beta)), np.cumsum(beta, 0), rtol=1e-6)


def test_far_and_crossed_boundaries_stay_finite_and_are_pushed_apart():
    eta = jnp.asarray([[-80.0, 0.0, 80.0], [2.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    for c in range(4):
        y = jnp.full(3, c)
        assert jnp.isfinite(ordinal_nll(eta, y)).all()
        grads = jax.grad(lambda e, y=y: ordinal_nll(e, y).sum())(eta)
        assert jnp.isfinite(grads).all()
    crossed = jax.grad(lambda e: ordinal_nll(e, jnp.full(3, 1)).sum())(eta)[1]
    assert crossed[0] > 0 > crossed[1]


def test_the_gradient_is_that_of_the_likelihood():
    x, y, _ = drawn(50)
    rng = np.random.default_rng(2)
    point = (np.array([-1.0, 0.5, 1.6]), rng.normal(size=(3, 3)) * 0.2)
    d_alpha, d_psi = gradient(x, y, point)
    for k in range(3):
        for found, index, where in ((d_alpha[k], (k,), 0), (d_psi[k, 1], (k, 1), 1)):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [point[0].copy(), point[1].copy()]
                moved[where][index] += h
                ends.append(plain_nll(moved[0], np.cumsum(moved[1], 0), x, y))
            assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)


def minimum(x, y, *, shared: bool):
    """The unpenalised fit by a general minimiser; of one slope for all boundaries, or of a slope for each."""

    def unpack(v):
        return v[:3], np.tile(v[3:], (3, 1)) if shared else v[3:].reshape(3, 3)

    def value(v):
        alpha, beta = unpack(v)
        bounds = np.column_stack([np.zeros(len(y)), sigmoid(alpha + x @ beta.T), np.ones(len(y))])
        rows = np.arange(len(y))
        return -np.log(np.maximum(bounds[rows, y + 1] - bounds[rows, y], CLIP)).mean()

    start = np.concatenate([[-0.5, 1.0, 2.0], np.zeros(3 if shared else 9)])
    found = scipy.optimize.minimize(value, start, method="BFGS", options={"gtol": 1e-8})
    return unpack(found.x)


def test_no_penalty_is_the_unlinked_fit_and_an_endless_one_proportional_odds():
    x, y, _ = drawn()
    tight = {"steps": 50_000, "tolerance": 1e-14}
    for strength, shared in ((0.0, False), (np.array([0.0, np.inf, np.inf]), True), (np.array([0, 1e3, 1e3]), True)):
        fit = fit_ordinal(x, y, classes=4, strength=strength, **tight)
        alpha, beta = minimum(x, y, shared=shared)
        np.testing.assert_allclose(fit.alpha, alpha, atol=2e-4)
        np.testing.assert_allclose(fit.beta, beta, atol=2e-4)
        if shared:
            assert not fit.psi[1:].any()
    everything = fit_ordinal(x, y, classes=4, strength=10.0)
    assert not everything.psi.any()
    share = np.cumsum(np.bincount(y))[:3] / len(y)
    np.testing.assert_allclose(everything.alpha, np.log(share / (1 - share)), atol=1e-6)


def test_the_objective_never_climbs_and_both_ways_arrive_at_one_place():
    x, y, _ = drawn(300)
    fits = {m: fit_ordinal(x, y, classes=4, strength=0.02, momentum=m, steps=20_000, tolerance=1e-13) for m in (0, 1)}
    plain = np.array(fits[0].objective)
    assert len(plain) > 10 and (np.diff(plain) <= 0).all()
    assert plain[-1] == pytest.approx(
        plain_nll(fits[0].alpha, fits[0].beta, x, y) + 0.02 * np.abs(fits[0].psi).sum(), rel=1e-9
    )
    assert fits[1].objective[-1] == pytest.approx(plain[-1], abs=1e-8)
    np.testing.assert_allclose(fits[1].psi, fits[0].psi, atol=1e-3)
    assert (fits[0].psi == 0).any() and (fits[0].psi != 0).any()


def test_the_optimum_obeys_its_conditions():
    x, y, _ = drawn(300)
    fit = fit_ordinal(x, y, classes=4, strength=0.02, steps=50_000, tolerance=1e-15)
    d_alpha, d_psi = gradient(x, y, (fit.alpha, fit.psi))
    assert np.abs(d_alpha).max() < 1e-5
    moved = fit.psi != 0
    np.testing.assert_allclose(d_psi[moved], -0.02 * np.sign(fit.psi[moved]), atol=1e-5)
    assert (np.abs(d_psi[~moved]) <= 0.02 + 1e-5).all()


def test_a_path_loosens_and_the_last_class_is_what_remains():
    x, y, _ = drawn(300)
    fits = fit_path(x, y, classes=4, strengths=[0.1, 0.03, 0.01, 0.001])
    sizes = [np.abs(f.psi).sum() for f in fits]
    assert sizes == sorted(sizes)
    fit = OrdinalFit(alpha=np.array([0.0, 1.0]), psi=np.array([[1.0], [0.5]]), objective=[])
    np.testing.assert_allclose(fit.last_class(np.array([[2.0]])), 1 - sigmoid(1.0 + 1.5 * 2.0))


def test_a_class_that_nobody_saw_is_refused():
    with pytest.raises(ValueError, match="each of the classes 0 to 3"):
        fit_ordinal(np.zeros((3, 1)), np.array([0, 1, 3]), classes=4, strength=0.1)


def test_the_rounded_absolute_value():
    x = jnp.asarray([-2.0, 0.0, 3e-3])
    np.testing.assert_allclose(smooth_absolute(x), jnp.abs(x), atol=1.1e-4)
    assert float(jax.grad(smooth_absolute)(0.0)) == 0.0
