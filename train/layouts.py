"""Where each parameter of a published encoder lies in the safetensors that Hugging Face's libraries write.

A rule says which tensors there make one parameter here, and how; `{i}` and `{j}` stand for equal numbers on both
sides. What a family's files hold beside the encoder is listed as unused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Make = Callable[..., np.ndarray]
Fit = Literal["exact", "rows", "grid", "line"]
"""exact: equal shapes; rows: zero rows make up the table's multiple; grid and line: positions, which can be resized."""


@dataclass(frozen=True)
class Rule:
    here: str
    there: tuple[str, ...]
    make: Make
    fit: Fit = "exact"


@dataclass(frozen=True)
class Layout:
    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()
    """Regexes of names there that an encoder has no use for."""
    prefixes: tuple[str, ...] = field(default=())
    """What may stand before every name, where the file is of a whole model."""


def _same(a: np.ndarray) -> np.ndarray:
    return a


def _transposed(a: np.ndarray) -> np.ndarray:
    return a.T


def _scalar(a: np.ndarray) -> np.ndarray:
    return a.reshape(())


def _row(a: np.ndarray) -> np.ndarray:
    """[1, 1, d] as [1, d]."""
    return a.reshape(1, a.shape[-1])


def _conv(a: np.ndarray) -> np.ndarray:
    """(out, in, height, width) as (height, width, in, out)."""
    return a.transpose(2, 3, 1, 0)


def _patches(a: np.ndarray) -> np.ndarray:
    """A convolution over patches as a matrix over flattened patches."""
    return _conv(a).reshape(-1, a.shape[0])


def _class_token(token: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """With the position it always has."""
    return token.reshape(1, -1) + positions.reshape(-1, positions.shape[-1])[:1]


def _after_class(positions: np.ndarray) -> np.ndarray:
    return positions.reshape(-1, positions.shape[-1])[1:]


def _after_padding(positions: np.ndarray) -> np.ndarray:
    """RoBERTa counts positions from 2 on."""
    return positions[2:]


def _third(index: int, *, transpose: bool) -> Make:
    """One of query, key and value that lie in one tensor."""

    def make(a: np.ndarray) -> np.ndarray:
        size = len(a) // 3
        part = a[index * size : (index + 1) * size]
        return part.T if transpose else part

    return make


def _linear(here: str, there: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{here}/kernel", (f"{there}.weight",), _transposed),
        Rule(f"{here}/bias", (f"{there}.bias",), _same),
    )


def _norm(here: str, there: str) -> tuple[Rule, ...]:
    return (Rule(f"{here}/scale", (f"{there}.weight",), _same), Rule(f"{here}/bias", (f"{there}.bias",), _same))


def _blocks(there: str, names: Mapping[str, str]) -> tuple[Rule, ...]:
    """The transformer's blocks, from the names there of their layers here."""
    rules: tuple[Rule, ...] = ()
    for here, name in names.items():
        make = _norm if here.startswith("norm") else _linear
        rules += make(f"transformer/blocks/{{i}}/{here}", f"{there}.{{i}}.{name}")
    return rules


def _bert(positions: Make) -> Layout:
    names = {
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_mlp": "output.LayerNorm",
    }
    return Layout(
        rules=(
            Rule("tokens/table", ("embeddings.word_embeddings.weight",), _same, "rows"),
            Rule("positions/vectors", ("embeddings.position_embeddings.weight",), positions, "line"),
            Rule("types/vectors", ("embeddings.token_type_embeddings.weight",), _same),
            *_norm("norm", "embeddings.LayerNorm"),
            *_blocks("encoder.layer", names),
            *_linear("pooler", "pooler.dense"),
        ),
        unused=(r"embeddings\.position_ids", r"pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*"),
        prefixes=("bert.", "roberta."),
    )


VIT = Layout(
    rules=(
        Rule("cls", ("embeddings.cls_token", "embeddings.position_embeddings"), _class_token),
        Rule("patches/positions", ("embeddings.position_embeddings",), _after_class, "grid"),
        Rule("patches/project/kernel", ("embeddings.patch_embeddings.projection.weight",), _patches),
        Rule("patches/project/bias", ("embeddings.patch_embeddings.projection.bias",), _same),
        *_blocks(
            "encoder.layer",
            {
                "norm_attention": "layernorm_before",
                "attention/query": "attention.attention.query",
                "attention/key": "attention.attention.key",
                "attention/value": "attention.attention.value",
                "attention/out": "attention.output.dense",
                "norm_mlp": "layernorm_after",
                "up": "intermediate.dense",
                "down": "output.dense",
            },
        ),
        *_norm("transformer/last", "layernorm"),
    ),
    unused=(r"pooler\..*", r"classifier\..*"),
    prefixes=("vit.",),
)

_CLIP_BLOCK = {
    "norm_attention": "layer_norm1",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.out_proj",
    "norm_mlp": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
_POSITION_IDS = r".*\.position_ids"

_TEXT = (
    Rule("tokens/table", ("text_model.embeddings.token_embedding.weight",), _same, "rows"),
    Rule("positions/vectors", ("text_model.embeddings.position_embedding.weight",), _same, "line"),
    *_blocks("text_model.encoder.layers", _CLIP_BLOCK),
    *_norm("transformer/last", "text_model.final_layer_norm"),
)
_VISION = (
    Rule("patches/project/kernel", ("vision_model.embeddings.patch_embedding.weight",), _patches),
    *_blocks("vision_model.encoder.layers", _CLIP_BLOCK),
    *_norm("transformer/last", "vision_model.post_layernorm"),
)
_POSITIONS = "vision_model.embeddings.position_embedding.weight"

CLIP_TEXT = Layout(_TEXT, unused=(r"vision_model\..*", r".*_projection\..*", r"logit_scale", _POSITION_IDS))
CLIP_VISION = Layout(
    rules=(
        *_VISION,
        Rule("cls", ("vision_model.embeddings.class_embedding", _POSITIONS), _class_token),
        Rule("patches/positions", (_POSITIONS,), _after_class, "grid"),
        *_norm("first", "vision_model.pre_layrnorm"),
    ),
    unused=(r"text_model\..*", r".*_projection\..*", r"logit_scale", _POSITION_IDS),
)
SIGLIP_TEXT = Layout(
    (*_TEXT, *_linear("head", "text_model.head")), unused=(r"vision_model\..*", r"logit_.*", _POSITION_IDS)
)
SIGLIP_VISION = Layout(
    rules=(
        *_VISION,
        Rule("patches/project/bias", ("vision_model.embeddings.patch_embedding.bias",), _same),
        Rule("patches/positions", (_POSITIONS,), _same, "grid"),
        Rule("pool/probe", ("vision_model.head.probe",), _row),
        *(
            rule
            for index, name in enumerate(("query", "key", "value"))
            for rule in (
                Rule(
                    f"pool/attention/{name}/kernel",
                    ("vision_model.head.attention.in_proj_weight",),
                    _third(index, transpose=True),
                ),
                Rule(
                    f"pool/attention/{name}/bias",
                    ("vision_model.head.attention.in_proj_bias",),
                    _third(index, transpose=False),
                ),
            )
        ),
        *_linear("pool/attention/out", "vision_model.head.attention.out_proj"),
        *_norm("pool/norm", "vision_model.head.layernorm"),
        *_linear("pool/up", "vision_model.head.mlp.fc1"),
        *_linear("pool/down", "vision_model.head.mlp.fc2"),
    ),
    unused=(r"text_model\..*", r"logit_.*", _POSITION_IDS),
)


def _both(vision: Layout, text: Layout, *more: Rule) -> Layout:
    """Two towers of one file, by the names that `modules.content.image_text` gives them."""
    towers = (("vision", vision), ("language", text))
    rules = (replace(rule, here=f"{name}/{rule.here}") for name, tower in towers for rule in tower.rules)
    scale = Rule("temperature/log_scale", ("logit_scale",), _scalar)
    return Layout((*rules, scale, *more), unused=(_POSITION_IDS,))


CLIP = _both(
    CLIP_VISION,
    CLIP_TEXT,
    Rule("image_out/kernel", ("visual_projection.weight",), _transposed),
    Rule("text_out/kernel", ("text_projection.weight",), _transposed),
)
SIGLIP = _both(SIGLIP_VISION, SIGLIP_TEXT, Rule("temperature/bias", ("logit_bias",), _scalar))


def _conv_norm(here: str, conv: str, norm: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{here}/conv/kernel", (f"{conv}.weight",), _conv),
        *_norm(f"{here}/norm", norm),
        Rule(f"stats/{here}/norm/mean", (f"{norm}.running_mean",), _same),
        Rule(f"stats/{here}/norm/var", (f"{norm}.running_var",), _same),
    )


EFFICIENTNET_LITE = Layout(
    rules=(
        *_conv_norm("stem", "conv_stem", "bn1"),
        # The blocks of the first stage have nothing to expand, and their norms are numbered from one.
        *_conv_norm("stages/0/{j}/depthwise", "blocks.0.{j}.conv_dw", "blocks.0.{j}.bn1"),
        *_conv_norm("stages/0/{j}/project", "blocks.0.{j}.conv_pw", "blocks.0.{j}.bn2"),
        *_conv_norm("stages/{i}/{j}/expand", "blocks.{i}.{j}.conv_pw", "blocks.{i}.{j}.bn1"),
        *_conv_norm("stages/{i}/{j}/depthwise", "blocks.{i}.{j}.conv_dw", "blocks.{i}.{j}.bn2"),
        *_conv_norm("stages/{i}/{j}/project", "blocks.{i}.{j}.conv_pwl", "blocks.{i}.{j}.bn3"),
        *_conv_norm("head", "conv_head", "bn2"),
    ),
    unused=(r".*\.num_batches_tracked", r"classifier\..*"),
)


def _numbered_through(counts: tuple[int, ...]) -> Iterator[Rule]:
    """Blocks numbered from the first to the last, whatever stage they are of; the first has nothing to expand."""
    places = [(i, j) for i, count in enumerate(counts) for j in range(count)]
    for n, (i, j) in enumerate(places):
        if n:
            yield from _conv_norm(f"stages/{i}/{j}/expand", f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0")
        yield from _conv_norm(f"stages/{i}/{j}/depthwise", f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1")
        yield from _conv_norm(f"stages/{i}/{j}/project", f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2")


EFFICIENTNET_LITE0 = Layout(
    rules=(
        *_conv_norm("stem", "_conv_stem", "_bn0"),
        *_numbered_through((1, 2, 2, 3, 3, 4, 1)),
        *_conv_norm("head", "_conv_head", "_bn1"),
    ),
    unused=(r".*\.num_batches_tracked", r"_fc\..*"),
)

_DECODER_BLOCK = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_DECODER_NORMS = {
    "norm_attention": "input_layernorm",
    "norm_mlp": "post_attention_layernorm",
    "norm_query": "self_attn.q_norm",
    "norm_key": "self_attn.k_norm",
}
DECODER = Layout(
    rules=(
        Rule("tokens/table", ("embed_tokens.weight",), _same, "rows"),
        *(rule for h, t in _DECODER_BLOCK.items() for rule in _linear(f"blocks/{{i}}/{h}", f"layers.{{i}}.{t}")),
        *(Rule(f"blocks/{{i}}/{h}/scale", (f"layers.{{i}}.{t}.weight",), _same) for h, t in _DECODER_NORMS.items()),
        Rule("last/scale", ("norm.weight",), _same),
    ),
    unused=(r"lm_head\..*", r".*rotary_emb\.inv_freq"),
    prefixes=("model.",),
)

LAYOUTS: Mapping[str, Layout] = {
    "bert": _bert(_same),
    "roberta": _bert(_after_padding),
    "decoder": DECODER,
    "vit": VIT,
    "clip": CLIP,
    "clip_vision": CLIP_VISION,
    "clip_text": CLIP_TEXT,
    "siglip": SIGLIP,
    "siglip_vision": SIGLIP_VISION,
    "siglip_text": SIGLIP_TEXT,
    "efficientnet_lite": EFFICIENTNET_LITE,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
}
