"""The click towers with history on Amazon Beauty under the DIN protocol: three seeds, one table.

    ADLOOM_DATA=... python -m train configs/bars_amazon_beauty.py
    ADLOOM_DATA=... python -m train configs/bars_amazon_beauty.py --only din,tin

Amazon 2014 5-core; one uniform negative beside each purchase; the valid part is each user's last purchase but one, and
the last is kept back. The trainer is that of BARS (configs/bars.py) with batches of 1,024. Users are keys of GAUC and
no inputs; histories are cut to the newest 20, which is all of 89 rows in 100 (of the valid part 96). The towers are
smaller than BARS's for the larger Electronics set, so that an epoch takes seconds on a CPU. Figures:
docs/benchmarks.md.
"""

from configs.bars import EMBEDDING, Entry, bars_experiment, rows, stages
from data.builders.base import Built
from data.transforms.roles import AsGroup
from data.transforms.sequences import Truncate
from modules.base import ModelConfig
from modules.behavior.dare import DARE
from modules.behavior.dien import DIEN
from modules.behavior.din import DIN
from modules.behavior.qin import QIN
from modules.behavior.sdim import SDIM
from modules.behavior.tin import TIN
from modules.ctr.dnn import DNN
from modules.layers.mlp import MLP
from train.metrics.gauc import GAUC
from train.pipeline import Pipeline
from train.protocol.leaderboard import Leaderboard
from train.protocol.space import Choices
from train.protocol.split import Build, Part, Split

SET = "@data/amazon_din/without_test/1.0.0"
TRAIN, VALID = (Built(path=SET, split=split) for split in ("train", "valid"))
PARTS = {
    "train": Part(
        source=TRAIN, rows=262_826, sha256="86e7bef95a9653661bde6eaf75446fbe391260c381ea126db4923ded09ed46dd"
    ),
    "valid": Part(source=VALID, rows=44_726, sha256="3370d9f64f89acdb227941dbe0a9acc5c80fe98b26ad960dd006bf5697af193b"),
}
LENGTH, DIM, TRIALS = 20, 32, 4
CUT = tuple(Truncate(history=name, length=LENGTH) for name in ("item_history", "cate_history"))
DEEP = MLP(widths=(256, 128), activation="dice", norm="batch", dropout=0.1)


def entry(label: str, model: ModelConfig, *, anchor: float | None = None, trials: int = TRIALS) -> Entry:
    experiment = bars_experiment(
        model,
        train=TRAIN,
        valid=VALID,
        rows=PARTS["train"].rows,
        l2=0.005,
        batch_size=1024,
        epochs=20,
        metrics=(GAUC(group="user_id", label="label"),),
        transforms=(AsGroup(feature="user_id"), *CUT),
    )
    space = {
        "optimizer.l2.0.1": Choices(values=(0.005, 0.02, 0.05)),
        "model.embedding.std": Choices(values=(1e-4, 0.05)),
    }
    return Entry(label=label, experiment=experiment, anchor=anchor, space=space, trials=trials)


def entries() -> dict[str, Entry]:
    attention = MLP(widths=(32, 16), activation="dice")
    return {
        "dnn": entry("DNN, histories averaged", DNN(dim=DIM, embedding=EMBEDDING, mlp=DEEP)),
        "din": entry(
            "DIN", DIN(dim=DIM, embedding=EMBEDDING, attention=attention, softmax=True, mlp=DEEP), anchor=0.84131
        ),
        "tin": entry("TIN", TIN(dim=DIM, embedding=EMBEDDING, mlp=DEEP)),
        "dare": entry(
            "DARE",
            DARE(
                dim=DIM,
                embedding=EMBEDDING,
                attention_dim=DIM,
                attention_embedding=EMBEDDING,
                auxiliary=False,
                keep=None,
                mlp=DEEP,
            ),
        ),
        "qin": entry("QIN", QIN(dim=DIM, embedding=EMBEDDING)),
        "sdim": entry("SDIM", SDIM(dim=DIM, embedding=EMBEDDING, attention=attention, mlp=DEEP)),
        "dien": entry("DIEN", DIEN(dim=DIM, embedding=EMBEDDING, mlp=DEEP)),
    }


def get_config() -> Pipeline:
    table = entries()
    return Pipeline(
        stages={
            "data": Build(name="amazon_din", manual="$ADLOOM_DATA/ctr/amazon_beauty", config="without_test"),
            "split": Split(parts=PARTS),
            **stages(table),
            "leaderboard": Leaderboard(
                title="Click towers with history on Amazon Beauty (valid part; DIN protocol)",
                rows=rows(table),
                also=("valid/gauc", "valid/logloss"),
                anchor="PyTorch zoo, 1 seed",
            ),
        }
    )
