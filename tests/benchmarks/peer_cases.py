"""What `tests.benchmarks.peers` compares: a model on synthetic rows in our words and in the zoo's, setting for setting.

Frappe-shaped cases are the published BARS settings of `configs/bars_frappe.py`. DIN has the sizes of the zoo's own
template (`DIN_default`: d = 40, attention [64] with Dice, tower [500, 500, 500]) with item and category joined.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.features import Categorical, Feature, Features, Label, Sequence
from data.pipeline import Loader
from data.sources import SourceConfig
from modules.base import ModelConfig
from modules.behavior.din import DIN
from modules.ctr.autoint import AutoInt
from modules.ctr.dcnv2 import DCNv2
from modules.ctr.dnn import DNN
from modules.ctr.finalmlp import FinalMLP
from modules.layers.mlp import MLP
from train.experiment import Experiment
from train.optim import Optimizer
from train.rowwise import LazyAdam
from train.tasks.pointwise import Pointwise

FRAPPE = {
    "user": 957, "item": 4082, "daytime": 7, "weekday": 7, "isweekend": 2,
    "homework": 3, "cost": 2, "weather": 9, "country": 80, "city": 233,
}  # fmt: skip
SHOP = {"user": 20_000, "item": 20_000, "category": 500}
HISTORIES = {"item_history": "item", "category_history": "category"}
TABLES = r"(^|/)table(_\w+)?$"
DEEP, DEEP_ZOO = (400, 400, 400), {"batch_norm": True}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model on both sides. `goal` is what the issue asks of the ratios of training and scoring."""

    name: str
    model: ModelConfig
    zoo: Mapping[str, Any]
    fields: Mapping[str, int]
    goal: tuple[float, float] = (1.3, 2.0)
    l2: float = 0.05
    dim: int = 10
    batch: int = 4096
    length: int = 0
    row_sparse: bool = False

    def histories(self) -> Mapping[str, str]:
        return HISTORIES if self.length else {}

    def features(self) -> Features:
        """Ids 0 and 1 are missing and unknown on our side, 0 padding on the zoo's: both get two rows more."""
        items = set(self.histories().values())
        inputs: list[Feature] = [
            Categorical(name=name, rows=size + 2, role="item" if name in items else "user")
            for name, size in self.fields.items()
        ]
        for name, target in self.histories().items():
            of = Categorical(name=name, rows=self.fields[target] + 2, share=target)
            inputs.append(Sequence(name=name, role="user", of=of, length=self.length))
        return Features(all=(*inputs, Label(name="click")))

    def experiment(self) -> Experiment:
        """The zoo's recipe: Adam, whole-table L2, clipping at norm 10.

        Where rows are sparse, the L2 of every row at every step becomes the lazy decay that amounts to it.
        """
        shared = {"lr": 1e-3, "clip_norm": 10.0}
        if self.row_sparse:
            optimizer = Optimizer(rows=(TABLES,), row_rule=LazyAdam(decay=self.l2), **shared)
        else:
            optimizer = Optimizer(l2=((TABLES, self.l2),) if self.l2 else (), **shared)
        return Experiment(
            model=self.model,
            task=Pointwise(),
            source=SourceConfig(),
            loader=Loader(batch_size=self.batch),
            optimizer=optimizer,
        )

    def to_zoo(self) -> dict[str, Any]:
        """What the peer's process needs, as JSON."""
        return {
            "fields": [(name, size + 2) for name, size in self.fields.items()],
            "histories": list(self.histories().items()),
            "length": self.length,
            "dim": self.dim,
            "zoo": {**self.zoo, **({"embedding_regularizer": self.l2} if self.l2 else {})},
        }

    def rows(self, rows: int, *, seed: int = 0) -> dict[str, np.ndarray]:
        """Uniform ids, which visit the most rows, and full histories; the first axis is the row."""
        rng = np.random.default_rng(seed)
        out = {name: rng.integers(2, size + 2, rows, dtype=np.int32) for name, size in self.fields.items()}
        for name, target in self.histories().items():
            out[name] = rng.integers(2, self.fields[target] + 2, (rows, self.length), dtype=np.int32)
            out[f"{name}/length"] = np.full(rows, self.length, np.int32)
        return out | {"click": rng.integers(0, 2, rows).astype(np.float32)}


def bn(*widths: int, dropout: float) -> MLP:
    return MLP(widths=widths, norm="batch", dropout=dropout)


def vocabulary(rows: int, *, goal: float, batch: int = 4096) -> Case:
    """The DNN of Frappe with ten equal fields of `rows` ids in all."""
    size = f"{rows // 1000}k" if rows < 1_000_000 else f"{rows // 1_000_000}m"
    return dataclasses.replace(
        CASES["dnn"],
        name=f"dnn_{size}" + ("" if batch == 4096 else f"_batch{batch}"),
        fields={f"field_{i}": rows // 10 for i in range(10)},
        goal=(goal, 2.0),
        batch=batch,
        row_sparse=True,
    )


CASES = {
    "dnn": Case(
        name="dnn",
        model=DNN(dim=10, mlp=bn(*DEEP, dropout=0.2)),
        zoo={"path": "DNN.DNN_torch.src.DNN.DNN", "hidden_units": DEEP, "net_dropout": 0.2, **DEEP_ZOO},
        fields=FRAPPE,
    ),
    "dcnv2": Case(
        name="dcnv2",
        model=DCNv2(dim=10, depth=4, mlp=bn(*DEEP, dropout=0.4)),
        zoo={
            "path": "DCNv2.src.DCNv2.DCNv2", "parallel_dnn_hidden_units": DEEP, "num_cross_layers": 4,
            "net_dropout": 0.4, **DEEP_ZOO,
        },
        fields=FRAPPE,
    ),
    "finalmlp": Case(
        name="finalmlp",
        model=FinalMLP(
            dim=10, mlp1=bn(400, dropout=0.4), mlp2=bn(100, dropout=0.4), gate_mlp=MLP(widths=(400,)),
            context1=("user",), context2=("item",), heads=5,
        ),
        zoo={
            "path": "FinalMLP.src.FinalMLP.FinalMLP", "mlp1_hidden_units": (400,), "mlp2_hidden_units": (100,),
            "mlp1_dropout": 0.4, "mlp2_dropout": 0.4, "mlp1_batch_norm": True, "mlp2_batch_norm": True,
            "fs_hidden_units": (400,), "fs1_context": ("user",), "fs2_context": ("item",), "num_heads": 5,
        },
        fields=FRAPPE,
    ),
    "autoint_plus": Case(
        name="autoint_plus",
        model=AutoInt(
            dim=10, layers=5, heads=4, width=128, residual="identity", scale=True, layer_norm=True, dropout=0.1,
            mlp=bn(*DEEP, dropout=0.1),
        ),
        zoo={
            "path": "AutoInt.src.AutoInt.AutoInt", "attention_layers": 5, "num_heads": 4, "attention_dim": 128,
            "layer_norm": True, "use_scale": True, "dnn_hidden_units": DEEP, "net_dropout": 0.1, **DEEP_ZOO,
        },
        fields=FRAPPE,
        l2=0.1,
        goal=(1.0, 2.0),
    ),
    "din_50": Case(
        name="din_50",
        model=DIN(dim=40, attention=MLP(widths=(64,), activation="dice"), mlp=MLP(widths=(500, 500, 500))),
        zoo={
            "path": "DIN.src.DIN.DIN", "attention_hidden_units": (64,), "dnn_hidden_units": (500, 500, 500),
            "din_target_field": [("item", "category")], "din_sequence_field": [("item_history", "category_history")],
        },
        fields=SHOP,
        dim=40,
        batch=1024,
        length=50,
        l2=0.0,
        goal=(2.0, 2.0),
    ),
}  # fmt: skip
for case in (
    vocabulary(100_000, goal=1.3),
    vocabulary(1_000_000, goal=5.0),
    vocabulary(1_000_000, goal=5.0, batch=1024),
    vocabulary(10_000_000, goal=20.0),
    vocabulary(10_000_000, goal=20.0, batch=1024),
):
    CASES[case.name] = case
