"""Product photos and titles, the titles by published MiniLM with low-rank pairs in its attention.

ADLOOM_DATA=... ADLOOM_MINILM=... python -m train configs/image_text_lora_fashion.py --workdir runs/lora_fashion

ADLOOM_MINILM: see `image_text_minilm_fashion`. Of the language tower only the pairs learn; with ("/blocks/5/", 0.1) in
place of ("lora_", 1.0) it would be its last block (partly frozen). The picture's tower is from scratch, 23.7 M
parameters in all. Each step runs all of MiniLM: the frozen config is the one for two cores.
"""

import chz

from configs import image_text_fashion
from configs.image_text_minilm_fashion import FOLDER, MINILM
from modules.content.image_text import ImageText
from modules.encoders.vision import ViT
from modules.layers.lora import LoRA
from train.experiment import Experiment
from train.optim import Optimizer
from train.pretrained import Pretrained


def get_config() -> Experiment:
    plain = image_text_fashion.experiment(tokenizer=f"{FOLDER}/tokenizer.json")
    pair = ImageText(dim=128, vision=ViT(patch=10, dim=128, depth=4, drop_patches=0.5), language=MINILM)
    return chz.replace(
        plain,
        model=LoRA(model=pair, match=r"^language/.*attention/(query|value)/kernel$"),
        optimizer=Optimizer(
            algorithm="adamw",
            lr=1e-3,
            warmup_steps=30,
            lr_schedule="cosine",
            weight_decay=0.05,
            lr_scale=(("lora_", 1.0), ("^language/", 0.0)),
        ),
        init_from=Pretrained(path=FOLDER, layout="bert", under="language"),
        steps=2000,
    )
