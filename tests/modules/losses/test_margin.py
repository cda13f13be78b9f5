"""The large-margin classifier against numpy, whole and with its classes split over four devices."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.margin import Share, _drawn, large_margin

N, C, COUNT, D = 8, 128, 121, 5
SCALE, MARGIN = 8.0, 0.4


@pytest.fixture
def arrays(rng):
    x, classes = rng.normal(size=(N, D)), rng.normal(size=(C, D))
    labels = np.array([0, 3, 3, 120, 11, 7, -1, 16])
    x[1] = -classes[3]  # an angle that the margin of ArcFace would turn past half a circle
    return {"x": x.astype(np.float32), "classes": classes.astype(np.float32), "labels": labels}


def oracle(x, classes, labels, *, kind, taking_part=None):
    x, classes = (np.asarray(v, np.float64) for v in (x, classes))
    cosine = (x / np.linalg.norm(x, axis=1)[:, None]) @ (classes / np.linalg.norm(classes, axis=1)[:, None]).T
    taking_part = np.arange(C) < COUNT if taking_part is None else taking_part
    losses = []
    for row, label in zip(cosine, labels, strict=True):
        if label < 0:
            continue
        angle = math.acos(np.clip(row[label], -1, 1))
        if kind == "cosface":
            with_margin = row[label] - MARGIN
        elif angle + MARGIN <= math.pi:
            with_margin = math.cos(angle + MARGIN)
        else:
            with_margin = row[label] - math.cos(math.pi - MARGIN) - 1
        others = sum(np.exp(SCALE * row[j]) for j in range(C) if taking_part[j] and j != label)
        losses.append(-math.log(np.exp(SCALE * with_margin) / (np.exp(SCALE * with_margin) + others)))
    return np.mean(losses)


def loss_of(kind, labels):
    return functools.partial(large_margin, labels=labels, scale=SCALE, margin=MARGIN, kind=kind, count=COUNT)


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
def test_equals_numpy(arrays, kind):
    loss = loss_of(kind, arrays["labels"])(arrays["x"], arrays["classes"])
    assert float(loss) == pytest.approx(oracle(**arrays, kind=kind), rel=1e-5)


@pytest.mark.parametrize(("shape", "of"), [((1, 4), 1.0), ((2, 2), 1.0), ((2, 2), 0.6)], ids=str)
def test_four_devices_equal_one_and_never_gather_the_classes(arrays, shape, of):
    share = Share(of, jax.random.key(3))
    sides = (arrays["x"], arrays["classes"])

    def run(x, classes):
        return loss_of("cosface", arrays["labels"])(x, classes, share=share)

    one = jax.value_and_grad(run, argnums=(0, 1))(*sides)
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(a, jax.NamedSharding(mesh, jax.P(n))) for a, n in zip(sides, mesh.axis_names, strict=True)
        ]
        compiled = jax.jit(jax.value_and_grad(run, argnums=(0, 1))).lower(*placed).compile()
        four = compiled(*placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, four)
    assert f"f32[{C},{D}]" not in compiled.as_text()


def test_a_share_holds_the_batchs_classes_and_a_draw_of_the_others(arrays):
    labels = jnp.asarray([9, -1])
    draws = [
        np.asarray(_drawn(jnp.arange(64), labels=labels, share=Share(0.5, jax.random.key(k)), groups=8))
        for k in range(6)
    ]
    assert all(len(set(d.tolist())) == 32 and 9 in d for d in draws)
    assert len({tuple(sorted(d.tolist())) for d in draws}) == 6
    assert not all(63 in d for d in draws)  # the label -1 asks for no class
    with pytest.raises(ValueError, match="rows divide by 8"):
        large_margin(arrays["x"], arrays["classes"][:21], labels=arrays["labels"], share=Share(0.5, jax.random.key(0)))


def test_the_sampled_loss_is_that_of_the_drawn_classes(arrays):
    share, labels = Share(0.4, jax.random.key(3)), np.array([5, 5])
    drawn = np.asarray(_drawn(jnp.arange(C), labels=jnp.asarray(labels), share=share, groups=8))
    taking_part = np.isin(np.arange(C), drawn) & (np.arange(C) < COUNT)
    assert taking_part.sum() < COUNT
    loss = loss_of("cosface", labels)(arrays["x"][:2], arrays["classes"], share=share)
    expected = oracle(arrays["x"][:2], arrays["classes"], labels, kind="cosface", taking_part=taking_part)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_rows_without_class_teach_nothing_and_a_label_too_high_is_nan(arrays):
    none = np.full(N, -1)
    value, grad = jax.value_and_grad(loss_of("cosface", none))(arrays["x"], arrays["classes"])
    assert float(value) == 0
    np.testing.assert_array_equal(grad, 0)
    assert np.isnan(loss_of("cosface", np.full(N, COUNT))(arrays["x"], arrays["classes"]))
