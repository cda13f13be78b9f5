"""A language model's folder: the decoder's equations in numpy from the file's own tensors, and what is refused."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from data.errors import UserError
from modules.encoders.bert import BERT
from modules.encoders.decoder import Decoder, rotated
from train.graph import name_of, split, values_of, with_values
from train.language import architecture
from train.pretrained import Pretrained

D, HEADS, GROUPS, HEAD, HIDDEN, V, T = 12, 6, 2, 4, 10, 20, 5
TOLD = {
    "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
    "head_dim": HEAD, "intermediate_size": HIDDEN, "vocab_size": V, "max_position_embeddings": 64,
    "rope_theta": 100.0, "rms_norm_eps": 1e-5,
}  # fmt: skip


def tensors(kind, rng):
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,), "lm_head.weight": (V, D)}
    for i in range(2):
        at = f"model.layers.{i}."
        for name, out in (("q", HEADS * HEAD), ("k", GROUPS * HEAD), ("v", GROUPS * HEAD)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (out, D)
            if kind == "qwen2":
                shapes[f"{at}self_attn.{name}_proj.bias"] = (out,)
        shapes[f"{at}self_attn.o_proj.weight"] = (D, HEADS * HEAD)
        for name in ("gate", "up"):
            shapes[f"{at}mlp.{name}_proj.weight"] = (HIDDEN, D)
        shapes[f"{at}mlp.down_proj.weight"] = (D, HIDDEN)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}{name}.weight"] = (D,)
        if kind == "qwen3":
            shapes |= {f"{at}self_attn.{n}_norm.weight": (HEAD,) for n in "qk"}
    return {n: (rng.normal(size=s) * 0.5 + (len(s) == 1)).astype(np.float32) for n, s in shapes.items()}


def folder_of(path, kind, there, **more):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**TOLD, "model_type": kind, **more}))
    save_file(there, path / "model.safetensors")
    return str(path)


def opened(folder, *, pool="mean"):
    config, layout = architecture(folder, pool=pool)
    encoder = config.make(tokens=V, length=T, rngs=nnx.Rngs(0))
    graph, params, stats = split(encoder)
    for path, variable in nnx.to_flat_state(params):
        variable.set_metadata(path=name_of(path))
    values, _ = Pretrained(path=folder, layout=layout).match(values_of(params))
    values = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return nnx.merge(graph, with_values(params, values), stats)


def written_out(there, ids, *, kind):
    """One token and one head at a time."""

    def rms(x, w):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5) * w

    def turn(x, t):
        half = HEAD // 2
        z = (x[:half] + 1j * x[half:]) * np.exp(1j * t * 100.0 ** (-np.arange(half) * 2 / HEAD))
        return np.concatenate([z.real, z.imag])

    there = {n.removeprefix("model."): w.astype(np.float64) for n, w in there.items()}
    x = there["embed_tokens.weight"][ids]
    for i in range(2):
        p = {n.removeprefix(f"layers.{i}."): w for n, w in there.items() if n.startswith(f"layers.{i}.")}
        y = rms(x, p["input_layernorm.weight"])
        q, k, v = (
            (y @ p[f"self_attn.{n}_proj.weight"].T + p.get(f"self_attn.{n}_proj.bias", 0)).reshape(len(ids), -1, HEAD)
            for n in "qkv"
        )
        if kind == "qwen3":
            q, k = rms(q, p["self_attn.q_norm.weight"]), rms(k, p["self_attn.k_norm.weight"])
        out = np.zeros((len(ids), HEADS, HEAD))
        for t in range(len(ids)):
            for h in range(HEADS):
                g = h // (HEADS // GROUPS)
                score = [turn(q[t, h], t) @ turn(k[s, g], s) / np.sqrt(HEAD) for s in range(t + 1)]
                w = np.exp(score) / np.exp(score).sum()
                out[t, h] = w @ v[: t + 1, g]
        x = x + out.reshape(len(ids), -1) @ p["self_attn.o_proj.weight"].T
        y = rms(x, p["post_attention_layernorm.weight"])
        gate = y @ p["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ p["mlp.up_proj.weight"].T)) @ p["mlp.down_proj.weight"].T
    return rms(x, there["norm.weight"])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_decoders_folder_gives_the_states_of_its_equations(kind, rng, tmp_path):
    there = tensors(kind, rng)
    encoder = opened(folder_of(tmp_path / kind, kind, there), pool="last")
    ids = rng.integers(0, V, (2, T)).astype(np.int32)
    where = np.arange(T) < np.array([[T], [3]])
    states = jax.jit(lambda ids, where: encoder.states(ids, where=where))(ids, where)
    expected = written_out(there, ids[0], kind=kind)
    np.testing.assert_allclose(states[0], expected, atol=2e-4, rtol=1e-4)
    short = written_out(there, ids[1, :3], kind=kind)
    np.testing.assert_allclose(states[1, :3], short, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(encoder(ids, where=where), [expected[-1], short[-1]], atol=2e-4, rtol=1e-4)
    encoder.pool = "mean"
    np.testing.assert_allclose(encoder(ids, where=where)[1], short.mean(axis=0), atol=2e-4, rtol=1e-4)


def test_half_precision_weights_are_read_as_they_are(rng, tmp_path):
    there = {n: w.astype(ml_dtypes.bfloat16) for n, w in tensors("llama", rng).items()}
    encoder = opened(folder_of(tmp_path / "half", "llama", there))
    table = encoder.tokens.table[...][:V]
    np.testing.assert_array_equal(np.asarray(table, np.float32), there["model.embed_tokens.weight"].astype(np.float32))


def test_turning_keeps_lengths_and_products_by_distance(rng):
    x = np.repeat(rng.normal(size=(1, 1, 1, 8)), 6, axis=1).astype(np.float32)
    y = np.asarray(rotated(x, theta=50.0))[0, :, 0]
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x[0, 0, 0]), rtol=1e-5)
    np.testing.assert_allclose(y[1] @ y[3], y[2] @ y[4], rtol=1e-4)
    assert abs(y[1] @ y[3] - y[1] @ y[5]) > 1e-3


def test_berts_folder_is_berts_config(tmp_path):
    told = {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 9,
        "intermediate_size": 16, "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    config, layout = architecture(str(tmp_path))
    assert layout == "bert" and config == BERT(dim=8, depth=3, heads=2, hidden=16, vocabulary=9, positions=32)
    (tmp_path / "config.json").write_text(json.dumps({**told, "model_type": "xlm-roberta"}))
    assert architecture(str(tmp_path), pool="cls")[1] == "roberta" and architecture(str(tmp_path))[0].positions == 30


def test_what_cannot_be_read_is_refused_with_a_reason(tmp_path):
    def told(**more):
        (tmp_path / "config.json").write_text(json.dumps({**TOLD, **more}))
        return str(tmp_path)

    with pytest.raises(UserError, match=r"no config\.json"):
        architecture(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="'t5'; there are bert"):
        architecture(told(model_type="t5"))
    with pytest.raises(UserError, match="stretches its rotary positions"):
        architecture(told(model_type="llama", rope_scaling={"rope_type": "yarn", "factor": 4}))
    with pytest.raises(UserError, match="first token has seen nothing"):
        architecture(told(model_type="qwen2"), pool="cls")
    with pytest.raises(UserError, match="reads both ways"):
        architecture(told(model_type="bert"), pool="last")
    narrow = architecture(told(model_type="mistral", sliding_window=16))[0]
    assert isinstance(narrow, Decoder) and narrow.positions == 16
    with pytest.raises(ValueError, match="do not divide"):
        Decoder(heads=6, groups=4)
