"""The click towers on Frappe under the BARS protocol: published settings, three seeds, one table.

    ADLOOM_DATA=... python -m train configs/bars_frappe.py
    ADLOOM_DATA=... python -m train configs/bars_frappe.py --only dnn,dcnv2

Builds the data from the owner's files, checks that they hold the rows of the published split, searches where a budget
is given, trains each model over the seeds, and writes a table and a plot. A second call skips what is done. Train
negatives were redrawn by the published process, positives and the valid part are the original ones; the test part is
kept back, so every figure is of the valid part, which also stops the runs. Figures: docs/benchmarks.md.
"""

from configs.bars import EMBEDDING, Entry, bars_experiment, mlp, rows, stages
from data.builders.base import Built
from modules.base import ModelConfig
from modules.ctr.autoint import AutoInt
from modules.ctr.dcn import DCN
from modules.ctr.dcnv2 import DCNv2
from modules.ctr.deepfm import DeepFM
from modules.ctr.dnn import DNN
from modules.ctr.finalmlp import FinalMLP
from modules.ctr.fm import FM
from modules.ctr.lr import LR
from modules.ctr.wide_deep import WideDeep
from modules.ctr.xdeepfm import xDeepFM
from modules.layers.mlp import MLP
from train.pipeline import Pipeline
from train.protocol.leaderboard import Leaderboard
from train.protocol.split import Build, Part, Split

SET = "@data/frappe/x1_without_test/1.0.0"
TRAIN, VALID = (Built(path=SET, split=split) for split in ("train", "valid"))
PARTS = {
    "train": Part(
        source=TRAIN, rows=202_027, sha256="fe781534cae47d4a3551245b5fafd7e88e4afb8d052db42d99da856430fa4f91"
    ),
    "valid": Part(source=VALID, rows=57_722, sha256="c7b8af9988c07dde60cf634d8fb791d6c2fb0542b2a6546e6fe3592c93136739"),
}
DEEP = mlp(400, 400, 400, dropout=0.2)


def entry(
    label: str, model: ModelConfig, *, l2: float, anchor: float | None = None, paper: str = "", trials: int = 0
) -> Entry:
    """`l2`, as the model's own fields, is what BARS publishes for Frappe."""
    experiment = bars_experiment(model, train=TRAIN, valid=VALID, rows=PARTS["train"].rows, l2=l2)
    return Entry(label=label, experiment=experiment, anchor=anchor, paper=paper, trials=trials)


def entries() -> dict[str, Entry]:
    linear = LR(embedding=EMBEDDING)
    deep = DNN(dim=10, embedding=EMBEDDING, mlp=DEEP)
    finalmlp = FinalMLP(
        dim=10,
        embedding=EMBEDDING,
        mlp1=mlp(400, dropout=0.4),
        mlp2=mlp(100, dropout=0.4),
        gate_mlp=MLP(widths=(400,)),
        context1=("user",),
        context2=("item",),
        heads=5,
    )
    dcnv2 = DCNv2(dim=10, embedding=EMBEDDING, depth=4, mlp=mlp(400, 400, 400, dropout=0.4))
    autoint = AutoInt(dim=10, embedding=EMBEDDING, layers=6, heads=4, width=128, residual="identity")
    autoint_plus = AutoInt(
        dim=10,
        embedding=EMBEDDING,
        layers=5,
        heads=4,
        width=128,
        residual="identity",
        scale=True,
        layer_norm=True,
        dropout=0.1,
        mlp=mlp(400, 400, 400, dropout=0.1),
    )
    return {
        "lr": entry("LR", linear, l2=1e-5, anchor=0.93761, paper=".9356"),
        "fm": entry("FM", FM(dim=10, embedding=EMBEDDING), l2=5e-6, paper=".9671"),
        "dnn": entry("DNN", deep, l2=0.05, anchor=0.98503, paper=".9833"),
        "wide_deep": entry("Wide & Deep", WideDeep(wide=linear, deep=deep), l2=0.05),
        "deepfm": entry("DeepFM", DeepFM(dim=10, embedding=EMBEDDING, mlp=DEEP), l2=0.05, paper=".9842"),
        "dcn": entry("DCN", DCN(dim=10, embedding=EMBEDDING, depth=3, mlp=DEEP), l2=0.05, paper=".9839"),
        "dcnv2": entry("DCNv2", dcnv2, l2=0.05, anchor=0.98498, paper=".9845"),
        "xdeepfm": entry("xDeepFM", xDeepFM(dim=10, embedding=EMBEDDING, cin=(64,), mlp=DEEP), l2=0.1, paper=".9845"),
        "autoint": entry("AutoInt", autoint, l2=0.05, paper=".9831"),
        "autoint_plus": entry("AutoInt+", autoint_plus, l2=0.1, anchor=0.98564, paper=".9848"),
        "finalmlp": entry("FinalMLP", finalmlp, l2=0.05, anchor=0.98604, paper=".9861"),
    }


def get_config() -> Pipeline:
    table = entries()
    return Pipeline(
        stages={
            "data": Build(name="frappe", manual="$ADLOOM_DATA/ctr/frappe", config="x1_without_test"),
            "split": Split(parts=PARTS),
            **stages(table),
            "leaderboard": Leaderboard(
                title="Click towers on Frappe (valid part; BARS protocol)",
                rows=rows(table),
                anchor="PyTorch zoo, 1 seed",
            ),
        }
    )
