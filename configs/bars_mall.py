"""Every click tower on the simulated mall, three seeds each, beside the AUC of who knows the true click rates.

    python -m train configs/bars_mall.py
    python -m train configs/bars_mall.py --only lr,din

Each tower as its own config has it (configs/*_mall.py): 600 steps of 1,024 impressions, Adam 3e-3, no search. Figures:
docs/benchmarks.md.
"""

from configs import (
    autoint_mall,
    aw_moe_mall,
    dare_mall,
    dcn_mall,
    dcnv2_mall,
    deepfm_mall,
    dien_mall,
    din_mall,
    dnn_mall,
    finalmlp_mall,
    fm_mall,
    lr_mall,
    qin_mall,
    sdim_mall,
    tin_mall,
    wide_deep_mall,
    xdeepfm_mall,
)
from configs.bars import Entry, rows, stages
from configs.common import clicks
from train.pipeline import Pipeline
from train.protocol.leaderboard import Leaderboard
from train.protocol.split import Part, Split

ARRAYS = ("user", "item", "click")
"""Whole numbers: computed floats differ in their last bit between processors."""

PARTS = {
    "train": Part(
        source=clicks(),
        rows=625_490,
        sha256="af3e5a5af95426d51041dbe510d2463206c38ee3d7a17eaa73a771ac15c4fb49",
        arrays=ARRAYS,
    ),
    "valid": Part(
        source=clicks("valid"),
        rows=81_370,
        sha256="d8d3530b986dbb209be6983a49fb240fe00f213b1080586e22dab24bf89fa3ea",
        arrays=ARRAYS,
    ),
}
TOWERS = {
    "LR": lr_mall,
    "FM": fm_mall,
    "DNN": dnn_mall,
    "Wide & Deep": wide_deep_mall,
    "DeepFM": deepfm_mall,
    "DCN": dcn_mall,
    "DCNv2": dcnv2_mall,
    "xDeepFM": xdeepfm_mall,
    "AutoInt": autoint_mall,
    "FinalMLP": finalmlp_mall,
    "DIN": din_mall,
    "DIEN": dien_mall,
    "TIN": tin_mall,
    "SDIM": sdim_mall,
    "DARE": dare_mall,
    "QIN": qin_mall,
    "AW-MoE": aw_moe_mall,
}


def entries() -> dict[str, Entry]:
    names = {label: tower.__name__.split(".")[-1].removesuffix("_mall") for label, tower in TOWERS.items()}
    return {names[label]: Entry(label=label, experiment=tower.get_config()) for label, tower in TOWERS.items()}


def get_config() -> Pipeline:
    table = entries()
    return Pipeline(
        stages={
            "split": Split(parts=PARTS),
            **stages(table),
            "leaderboard": Leaderboard(
                title="Click towers on the mall (valid part)",
                rows=rows(table),
                also=("valid/gauc", "valid/logloss", "valid/ece"),
                line="valid/auc/possible",
                base="LR",
            ),
        }
    )
