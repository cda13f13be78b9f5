"""The vectors of the mall's texts by a published language model, MiniLM unless told otherwise, run once.

ADLOOM_MINILM=... python -m train configs/minilm_texts_mall.py --workdir runs/texts
python -m train configs/learn_mall.py --workdir runs/learn_minilm ...content=runs/texts/vectors/vectors

ADLOOM_MINILM is a folder as of `image_text_minilm_fashion`; `stages.language.folder` names any other of BERT's family,
or a decoder's (Llama, Mistral, Qwen2, Qwen3), whose tokenizer `...tokenizer` is then to name. Where it is not at hand,
configs read hashed TF-IDF of the same texts instead.
"""

from data.mall.config import Mall
from data.mall.texts import MallTexts
from serve.stages import Embed
from train.language import LanguageModel
from train.pipeline import Pipeline

FOLDER = "$ADLOOM_MINILM"


def get_config() -> Pipeline:
    texts = MallTexts(mall=Mall(), tokenizer=f"{FOLDER}/tokenizer.json")
    return Pipeline(
        stages={
            "language": LanguageModel(folder=FOLDER, source=texts),
            "vectors": Embed(of="@language", source=texts, name="vectors", vectors=("query",), batch=128),
        }
    )
