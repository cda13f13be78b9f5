"""A text as one vector of unit length, by whatever encoder: Sentence-BERT (Reimers and Gurevych, EMNLP 2019).

For published encoders that stay as they are: their vectors are computed once and read as a dense feature.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.bert import BERT
from modules.encoders.text import TextEncoderConfig
from modules.layers.similarity import unit


@chz.chz
class Sentence(ModelConfig):
    """The vector is "query", as that of a title is in `ImageText`."""

    language: TextEncoderConfig = chz.field(default_factory=BERT, blueprint_unspecified=BERT)
    text: str = chz.field(default="title", doc="feature with the tokens")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SentenceModel":
        return SentenceModel(self, features=features, rngs=rngs)


class SentenceModel(Model):
    def __init__(self, config: Sentence, *, features: Features, rngs: nnx.Rngs):
        text = features[config.text]
        if text.kind != "text":
            raise ValueError(f"Sentence needs a text; {config.text!r} is a feature of kind {text.kind}")
        self.text_name = config.text
        self.language = config.language.make(tokens=text.size, length=text.max_len, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        where = valid(batch, self.text_name)
        return {"query": unit(self.language(batch[self.text_name], where=where, rngs=rngs))}
