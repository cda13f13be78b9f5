"""Published weights into parameters here: what does not fit is listed by name."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from data.errors import UserError
from modules.encoders.bert import BERT
from modules.encoders.vit import ViTBase
from modules.layers.patches import resize_grid
from tests.modules.encoders.published import arrays_of, tensors, write
from train.experiment import Experiment
from train.init_from import InitFrom
from train.layouts import LAYOUTS
from train.pretrained import Pretrained, Several

TINY = {"dim": 16, "depth": 2, "heads": 4, "hidden": 24}
TYPES, QUERY = "embeddings.token_type_embeddings.weight", "encoder.layer.1.attention.self.query.weight"


def arrays(config, *, under="", **sizes):
    made = arrays_of(nnx.eval_shape(lambda: config.make(**sizes, rngs=nnx.Rngs(0))))
    return {f"{under}/{name}".strip("/"): value for name, value in made.items()}


def bert(**fields):
    config = BERT(**TINY, **{"vocabulary": 43, "positions": 12} | fields)
    return arrays(config, under="language", tokens=43, length=8)


def vit(*, side=24, under="", **fields):
    return arrays(ViTBase(**TINY, patch=8, **fields), under=under, shape=(side, side, 3))


def start(path, **fields):
    return Pretrained(**{"path": path, "layout": "bert", "under": "language"} | fields)


def test_every_parameter_comes_from_its_tensor(tmp_path):
    path, there = write("bert", folder=tmp_path), tensors("bert")
    values, report = start(path).match(bert() | {"other/kernel": np.zeros(2)})
    assert set(values) == set(bert())
    assert report.left_out == ("other/kernel",)
    query = "language/transformer/blocks/1/attention/query/kernel"
    assert (query, QUERY) in report.loaded
    np.testing.assert_array_equal(values[query], there[QUERY].T)
    table = values["language/tokens/table"]
    np.testing.assert_array_equal(table[:43], there["embeddings.word_embeddings.weight"])
    assert len(table) == 48 and not table[43:].any()  # a multiple of rows, which no token reads


def test_missing_and_surplus_tensors_are_listed_by_name(tmp_path):
    more = {"encoder.layer.2.output.dense.bias": np.zeros(16, np.float32), "adapter.weight": np.ones(1, np.float32)}
    path = write("bert", folder=tmp_path, **{TYPES: None, QUERY: None}, **more)
    with pytest.raises(UserError) as caught:
        start(path).match(bert())
    message = str(caught.value)
    assert f"missing there: {TYPES}, {QUERY}" in message
    assert "surplus there (init_from.ignore leaves them): adapter.weight, encoder.layer.2.output.dense.bias" in message
    path = write("bert", folder=tmp_path, **more)
    assert start(path, ignore=r"adapter.*|encoder\.layer\.2.*").match(bert())[0]


def test_wrong_shapes_are_named(tmp_path):
    path = write("bert", folder=tmp_path)
    with pytest.raises(UserError, match=r"embeddings.weight gives \(43, 16\), language/tokens/table is \(56, 16\)"):
        start(path).match(bert(vocabulary=50))
    with pytest.raises(UserError, match=r"gives \(12, 16\), language/positions/vectors is \(24, 16\); set init"):
        start(path).match(bert(positions=24))
    values, _ = start(path, interpolate=True).match(bert(positions=24))
    assert values["language/positions/vectors"].shape == (24, 16)


def test_parameters_that_the_file_knows_nothing_of_are_named_or_stay_fresh(tmp_path):
    path, here = write("vit", folder=tmp_path), vit(under="vision", registers=2)
    with pytest.raises(UserError, match=r"not of this layout here .*: vision/registers"):
        start(path, layout="vit", under="vision").match(here)
    values, report = start(path, layout="vit", under="vision", fresh="registers").match(here)
    assert report.left_out == ("vision/registers",) and "vision/cls" in values
    with pytest.raises(UserError, match="no parameter under 'language' is of layout vit"):
        start(path, layout="vit").match(here)


def test_a_grid_of_positions_is_interpolated_when_asked(tmp_path):
    path, there = write("vit", folder=tmp_path), tensors("vit")["embeddings.position_embeddings"][0]
    with pytest.raises(UserError, match=r"patches/positions is \(16, 16\); set init_from.interpolate"):
        start(path, layout="vit", under="").match(vit(side=32))
    values, _ = start(path, layout="vit", under="", interpolate=True).match(vit(side=32))
    wanted = resize_grid(jnp.asarray(there[1:]), old=(3, 3), new=(4, 4))
    np.testing.assert_allclose(values["patches/positions"], wanted, atol=1e-6)
    wide, _ = start(path, layout="vit", under="", interpolate=True, grid=(2, 8)).match(vit(side=32))
    assert np.abs(wide["patches/positions"] - values["patches/positions"]).max() > 0.01
    with pytest.raises(UserError, match=r"init_from.grid is \(2, 3\), but there are 16 patches here"):
        start(path, layout="vit", under="", interpolate=True, grid=(2, 3)).match(vit(side=32))


def test_files_of_whole_models_in_parts_and_in_bfloat16(tmp_path):
    held = {f"bert.{name}": jnp.asarray(a, jnp.bfloat16) for name, a in tensors("bert").items()}
    held |= {"cls.predictions.bias": jnp.ones(43)}
    names = sorted(held)
    for part, chosen in enumerate((names[:9], names[9:])):
        to_file({name: np.asarray(held[name]) for name in chosen}, tmp_path / f"model-{part}.safetensors")
    values, _ = start(str(tmp_path)).match(bert())
    np.testing.assert_allclose(values["language/types/vectors"], tensors("bert")[TYPES], atol=0.02)


def to_file(arrays, path: Path):
    """As safetensors' own numpy writer, which has no name for bfloat16."""
    import json

    kinds, header, data = {"bfloat16": "BF16", "float32": "F32"}, {}, b""
    for name, a in arrays.items():
        spans = [len(data), len(data) + a.nbytes]
        header[name] = {"dtype": kinds[a.dtype.name], "shape": list(a.shape), "data_offsets": spans}
        data += a.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def state_of(arrays):
    params = {name: jnp.zeros(a.shape) for name, a in arrays.items()}
    return {"step": 0, "params": params, "stats": {}, "opt": (), "rows": {}, "ema": {"other": jnp.ones(2)}}


def test_two_towers_start_from_two_files(tmp_path):
    for name in ("bert", "vit"):
        (tmp_path / name).mkdir()
    text = start(write("bert", folder=tmp_path / "bert"))
    image = start(write("vit", folder=tmp_path / "vit"), layout="vit", under="vision")
    state = state_of(bert() | vit(under="vision") | {"other": np.zeros(2)})
    state["ema"]["vision/cls"] = jnp.zeros((1, 16))
    new, report = Several(of=(text, image)).apply(state)
    assert report.left_out == ("other",)
    assert all(np.any(a) for name, a in new["params"].items() if name != "other")
    np.testing.assert_array_equal(new["ema"]["vision/cls"], new["params"]["vision/cls"])
    np.testing.assert_array_equal(new["ema"]["other"], 1)
    assert set(new["params"]) == set(state["params"])
    jax.jit(lambda s: s, donate_argnums=0)({n: new[n] for n in ("params", "ema")})  # no buffer is held twice


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no safetensors at .*nowhere"):
        start(str(tmp_path / "nowhere")).match(bert())
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"model.safetensors is no whole safetensors file"):
        start(str(tmp_path)).match(bert())
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"missing there: .*{TYPES}"):
        start(str(tmp_path)).match(bert())


def test_wrong_fields_are_refused():
    with pytest.raises(ValueError, match="'brt'; did you mean 'bert'"):
        Pretrained(path="x", layout="brt")
    with pytest.raises(ValueError, match="not a regular expression"):
        Pretrained(path="x", layout="bert", ignore="(")


def test_either_start_fits_an_experiment():
    kind = Experiment.__annotations__["init_from"]
    assert issubclass(InitFrom, kind.__args__[0]) and issubclass(Pretrained, kind.__args__[0])
    assert Several(of=(InitFrom(workdir="a"), Pretrained(path="b", layout="vit"))).origin == "a and b"


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_two_rules_of_a_layout_make_one_parameter(name):
    here = [rule.here for rule in LAYOUTS[name].rules]
    assert len(set(here)) == len(here)
