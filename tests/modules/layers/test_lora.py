"""LoRA: the identity at first, its equation after, exact when merged, and no kernel passed by."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Image, Text
from modules.content.image_text import ImageText
from modules.ctr.dnn import DNN
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ViT
from modules.layers.linear import Linear
from modules.layers.lora import LoRA, LoRALinear
from modules.layers.mlp import MLP
from train.graph import split, values_of, with_values

FEATURES = Features(all=(Image(name="image", height=16, width=16), Text(name="title", tokens=30, length=6)))
PLAIN = ImageText(dim=4, vision=ViT(dim=8, depth=1, heads=2), language=TextTransformer(dim=8, heads=2))
ADAPTED = LoRA(model=PLAIN, match=r"(language/.*(attention/query|blocks/0/up)|text_out)/kernel$", rank=2, alpha=3.0)
QUERY = "language/transformer/blocks/0/attention/query/"


@pytest.fixture
def batch(rng):
    title = rng.integers(1, 30, (3, 6))
    return {"title": title, "title/length": np.array([6, 3, 1])}


def shapes(config):
    return {n: a.shape for n, a in values_of(split(made(config))[1]).items()}


def made(config):
    return nnx.eval_shape(lambda: config.make(FEATURES, rngs=nnx.Rngs(0)))


def forward(config, params, batch):
    graph, template, stats = split(made(config))
    rest = with_values(stats, {n: np.zeros(a.shape) for n, a in values_of(stats).items()})
    return jax.jit(lambda p: nnx.merge(graph, with_values(template, p), rest)(batch)["query"])(params)


def test_starts_as_the_identity(rng):
    linear = Linear(3, 5, rngs=nnx.Rngs(0))
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    layer = LoRALinear(linear, rank=2, scale=1.5, rngs=nnx.Rngs(1))
    assert np.abs(layer.lora_a[...]).min() > 0
    np.testing.assert_array_equal(layer(x), linear(x))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    grads = jax.grad(lambda p: nnx.merge(graph, p, rest)(x).sum())(params)
    assert np.abs(grads["lora_b"][...]).max() > 0  # it can leave the identity


def test_keeps_the_paths():
    adapted, plain = shapes(ADAPTED), shapes(PLAIN)
    pairs = set(adapted) - set(plain)
    assert {n: shape for n, shape in adapted.items() if n not in pairs} == plain
    layers = [QUERY[:-1], "language/transformer/blocks/0/up", "text_out"]
    assert pairs == {f"{layer}/lora_{side}" for layer in layers for side in "ab"}
    assert (adapted[QUERY + "lora_a"], adapted[QUERY + "lora_b"]) == ((8, 2), (2, 8))


def test_merges_exactly(batch, rng):
    params = {n: rng.normal(size=shape).astype(np.float32) / 2 for n, shape in shapes(ADAPTED).items()}
    merged = ADAPTED.merged(params)
    assert {n: a.shape for n, a in merged.items()} == shapes(PLAIN)
    a, b = params[QUERY + "lora_a"], params[QUERY + "lora_b"]
    np.testing.assert_allclose(merged[QUERY + "kernel"], params[QUERY + "kernel"] + 3.0 / 2 * a @ b, atol=1e-5)
    after = forward(ADAPTED, params, batch)
    assert np.abs(after - forward(PLAIN, {name: params[name] for name in merged}, batch)).max() > 0.01
    np.testing.assert_allclose(forward(PLAIN, merged, batch), after, atol=1e-5)


@pytest.mark.parametrize(
    ("match", "message"),
    [("nothing", "matches no parameter"), ("tokens/table", "language/tokens/table is no kernel of a linear layer")],
)
def test_what_cannot_be_adapted_is_named(match, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: LoRA(model=PLAIN, match=match).make(FEATURES, rngs=nnx.Rngs(0)))


def test_a_kernel_read_without_its_layer_is_refused():
    features = Features(all=(Categorical(name="user", rows=9),))
    config = LoRA(model=DNN(dim=4, mlp=MLP(widths=(4,), norm="batch")), match="mlp/hidden/0/linear/kernel")
    with pytest.raises(ValueError, match="read without its layer"):
        jax.eval_shape(lambda: config.make(features, rngs=nnx.Rngs(0))({"user": np.zeros(2, int)}))
