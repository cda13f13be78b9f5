"""A language model as an interface: any Hugging Face folder of BERT's family or of a decoder's, run once over texts.

The folder's config.json says what it is; its safetensors and tokenizer.json are read as they came.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import chz

from data.errors import UserError
from data.paths import expand
from data.sources import SourceConfig
from modules.content.sentence import Sentence
from modules.encoders.bert import BERT
from modules.encoders.decoder import Decoder
from modules.encoders.text import TextEncoderConfig
from train.as_published import AsPublished
from train.pipeline import Results, Say, Stage
from train.pretrained import Pretrained

DECODERS = ("llama", "mistral", "qwen2", "qwen3")
ENCODERS = ("bert", "roberta", "xlm-roberta")
Pool = Literal["mean", "cls", "last"]


@chz.chz
class LanguageModel(Stage):
    """The workdir of published weights over the texts of a source: `Embed` with vectors=("query",) then writes one
    vector of each text, and nothing of the model is needed any more."""

    folder: str = chz.field(default="$ADLOOM_MINILM", doc="with config.json and safetensors; may begin with $NAME")
    source: SourceConfig = chz.field(doc="texts, by the folder's tokenizer")
    text: str = chz.field(default="text", doc="feature with the tokens")
    pool: Pool = chz.field(default="mean", doc="mean of the tokens, BERT's first, or a decoder's last")

    def run(self, *, out: Path, say: Say) -> Results:
        language, layout = architecture(self.folder, pool=self.pool)
        start = Pretrained(path=self.folder, layout=layout, under="language")
        stage = AsPublished(model=Sentence(language=language, text=self.text), start=start, source=self.source)
        return stage.run(out=out, say=say)


def architecture(folder: str, *, pool: Pool = "mean") -> tuple[TextEncoderConfig, str]:
    """The encoder that a folder's config.json describes, and the layout of its tensors."""
    path = expand(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in {folder}: name a folder as Hugging Face's libraries write it")
    told: Mapping[str, Any] = json.loads(path.read_text())
    kind = told.get("model_type", "")
    if kind in ENCODERS:
        if pool == "last":
            raise UserError(f"{folder} is {kind}, which reads both ways: pool is mean or cls")
        return _encoder(told, pool=pool), "bert" if kind == "bert" else "roberta"
    if kind in DECODERS:
        if pool == "cls":
            raise UserError(f"{folder} is {kind}, whose first token has seen nothing: pool is mean or last")
        return _decoder(told, kind=kind, pool=pool, folder=folder), "decoder"
    raise UserError(f"{folder} is of type {kind!r}; there are {', '.join((*ENCODERS, *DECODERS))}")


def _encoder(told: Mapping[str, Any], *, pool: Literal["mean", "cls"]) -> BERT:
    offset = 0 if told["model_type"] == "bert" else 2  # RoBERTa counts positions from 2 on
    return BERT(
        dim=told["hidden_size"],
        depth=told["num_hidden_layers"],
        heads=told["num_attention_heads"],
        hidden=told["intermediate_size"],
        vocabulary=told["vocab_size"],
        positions=told["max_position_embeddings"] - offset,
        types=told["type_vocab_size"],
        epsilon=told["layer_norm_eps"],
        pool=pool,
    )


def _decoder(told: Mapping[str, Any], *, kind: str, pool: Literal["mean", "last"], folder: str) -> Decoder:
    scaled = told.get("rope_scaling")
    if scaled and scaled.get("rope_type", scaled.get("type")) not in (None, "default"):
        raise UserError(f"{folder} stretches its rotary positions ({scaled}), which is not read; take another model")
    rope = told.get("rope_parameters") or {}
    # Within its window, attention that slides sees what all attention sees.
    window = told.get("sliding_window") if told.get("use_sliding_window", kind == "mistral") else None
    return Decoder(
        dim=told["hidden_size"],
        depth=told["num_hidden_layers"],
        heads=told["num_attention_heads"],
        groups=told.get("num_key_value_heads") or told["num_attention_heads"],
        head=told.get("head_dim"),
        hidden=told["intermediate_size"],
        vocabulary=told["vocab_size"],
        positions=min(told["max_position_embeddings"], window or told["max_position_embeddings"]),
        theta=told.get("rope_theta") or rope.get("rope_theta") or 10_000.0,
        epsilon=told["rms_norm_eps"],
        bias=kind == "qwen2" or bool(told.get("attention_bias")),
        qk_norm=kind == "qwen3",
        pool=pool,
    )
