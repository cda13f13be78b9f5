"""The optimizer config: algorithms against optax, schedules, masks, factors, and patterns that match nothing."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data.errors import UserError
from train.optim import SETTINGS, Optimizer
from train.rowwise import LazyAdam, RowwiseAdagrad

SHAPES = {"embed/table_2": (6, 2), "mlp/0/kernel": (2, 3), "mlp/0/bias": (3,), "norm/scale": (3,)}


@pytest.fixture
def params(rng):
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()}


def after(tx, params, *, steps=3):
    """Parameters after steps on the gradients of sum(sin(p))."""
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (Optimizer(lr=0.1), optax.adam(0.1)),
        (Optimizer(lr=0.1, algorithm="adam", b1=0.5, eps=1e-3), optax.adam(0.1, b1=0.5, eps=1e-3)),
        (Optimizer(lr=0.1, algorithm="adamw", weight_decay=0.2, decay=""), optax.adamw(0.1, weight_decay=0.2)),
        (Optimizer(lr=0.1, algorithm="sgd"), optax.sgd(0.1)),
        (Optimizer(lr=0.1, algorithm="sgd", momentum=0.9), optax.sgd(0.1, momentum=0.9)),
        (Optimizer(lr=0.1, algorithm="adagrad"), optax.adagrad(0.1)),
        (Optimizer(lr=0.1, algorithm="rmsprop"), optax.rmsprop(0.1)),
        (Optimizer(lr=0.1, algorithm="lion"), optax.lion(0.1, weight_decay=0.0)),
        (Optimizer(lr=0.1, algorithm="lamb", weight_decay=0.2, decay=""), optax.lamb(0.1, weight_decay=0.2)),
    ],
    ids=lambda value: value.algorithm if isinstance(value, Optimizer) else "",
)
def test_algorithms_are_those_of_optax(config, reference, params):
    ours, theirs = after(config.make(params, steps=3), params), after(reference, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_moments_are_named_by_their_parameter_and_frozen_ones_have_none(algorithm, params):
    config = Optimizer(algorithm=algorithm, lr_scale=(("norm/", 0.0),))
    state = jax.eval_shape(config.make(params, steps=3).init, params)
    found = {path[-1].key for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0] if leaf.shape}
    assert found == (set(params) - {"norm/scale"} if algorithm != "sgd" else set())


def test_only_kernels_decay(params):
    with_decay = Optimizer(lr=0.1, algorithm="adamw", weight_decay=0.5)
    ours, plain = (
        after(with_decay.make(params, steps=3), params),
        after(Optimizer(lr=0.1).make(params, steps=3), params),
    )
    changed = {path for path in params if not np.array_equal(ours[path], plain[path])}
    assert changed == {"mlp/0/kernel"}


def test_factors_scale_and_freeze(params):
    config = Optimizer(lr=0.1, algorithm="sgd", lr_scale=(("table", 0.5), ("bias$", 0.0), ("mlp/", 2.0)))
    new = after(config.make(params, steps=1), params, steps=1)
    factors = {"embed/table_2": 0.5, "mlp/0/bias": 0.0, "mlp/0/kernel": 2.0, "norm/scale": 1.0}
    assert config.lr_scales(params) == factors
    for path, factor in factors.items():
        np.testing.assert_allclose(new[path], params[path] - 0.1 * factor * jnp.cos(params[path]), atol=1e-6)
    np.testing.assert_array_equal(new["mlp/0/bias"], params["mlp/0/bias"])


@pytest.mark.parametrize(
    ("fields", "expected"),  # at steps 0, 3, 4, 12 and 20 of 20
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warmup_steps": 4}, [0.25, 1, 1, 1, 1]),
        ({"lr_schedule": "linear", "warmup_steps": 4, "final_scale": 0.2}, [0.25, 1, 1, 0.6, 0.2]),
        ({"lr_schedule": "cosine", "warmup_steps": 4}, [0.25, 1, 1, 0.5, 0]),
        ({"lr_schedule": "rsqrt", "warmup_steps": 4}, [0.25, 1, 1, (4 / 12) ** 0.5, (4 / 20) ** 0.5]),
    ],
)
def test_schedules(fields, expected):
    rate = Optimizer(lr=0.1, **fields).schedule(20)
    np.testing.assert_allclose([rate(step) for step in (0, 3, 4, 12, 20)], 0.1 * np.array(expected), atol=1e-7)


def test_the_schedule_drives_the_updates(params):
    config = Optimizer(lr=0.1, algorithm="sgd", lr_schedule="linear")
    new = after(config.make(params, steps=1), params, steps=2)  # the rate is 0 from step 1 on
    jax.tree.map(lambda n, p: np.testing.assert_allclose(n, p - 0.1 * jnp.cos(p), atol=1e-6), new, params)


def test_row_tables_are_chosen_by_pattern(params):
    config = Optimizer(rows=(r"table_\d+$",), lr_scale=(("table", 0.5),))
    assert config.row_params(params) == {"embed/table_2"}
    config.make({p: v for p, v in params.items() if p != "embed/table_2"}, steps=3)  # its factor is of no dense one
    with pytest.raises(UserError, match=r"norm/scale of shape \(3,\)"):
        Optimizer(rows=("norm",)).row_params(params)


@pytest.mark.parametrize(
    ("fields", "call", "near"),
    [
        ({"rows": ("embed/tables_2",)}, "row_params", "embed/table_2"),
        ({"lr_scale": (("mpl/0/bias", 0.1),)}, "lr_scales", "mlp/0/bias"),
        ({"lr_scale": (("mpl/0/bias", 0.1),)}, "make", "mlp/0/bias"),
        ({"algorithm": "adamw", "weight_decay": 0.1, "decay": "mlp/0/kernels"}, "make", "mlp/0/kernel"),
    ],
)
def test_a_pattern_without_a_match_is_refused(fields, call, near, params):
    config = Optimizer(**fields)
    more = {"steps": 3} if call == "make" else {}
    with pytest.raises(UserError, match=f"matches no parameter; the nearest is {near}$"):
        getattr(config, call)(params, **more)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="warmup_steps=9 is more than the run's 5"):
        Optimizer(warmup_steps=9).schedule(5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"algorithm": "sgd", "b1": 0.9}, "b1 is not a setting of sgd, which has momentum"),
        ({"weight_decay": 0.1}, "algorithm=adamw"),
        ({"accumulate": 0}, "accumulate"),
        ({"ema": 1.0}, "ema"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"lr_schedule": "rsqrt"}, "warmup_steps"),
        ({"rows": ("(",)}, "regular expression"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**fields)


def test_the_command_line_names_it_all():
    words = ["algorithm=lion", "lr=1e-4", "b1=.95", "rows=table", "row_rule=RowwiseAdagrad", "row_rule.eps=1e-3"]
    made = chz.Blueprint(Optimizer).make_from_argv(words)
    assert made == Optimizer(algorithm="lion", lr=1e-4, b1=0.95, rows=("table",), row_rule=RowwiseAdagrad(eps=1e-3))
    assert chz.Blueprint(Optimizer).make_from_argv(["row_rule.b2=.99"]).row_rule == LazyAdam(b2=0.99)
