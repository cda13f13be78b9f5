"""The peer's half of `tests.benchmarks.peers`, run by the peer's interpreter: FuxiCTR's own models and train step.

Reads one JSON request a line and answers each with one JSON line. Needs torch, fuxictr and the folder `model_zoo` of
its repository, since the wheel holds the trainer but not the models; nothing of adloom is imported.
"""

import importlib
import json
import os
import sys
import time
import types
from collections import OrderedDict

import numpy as np
import torch


def feature_map(case: dict):
    """The zoo's description of the fields, as its preprocessing would have written it."""
    from fuxictr.features import FeatureMap

    built = FeatureMap("synthetic", "/nowhere")
    for name, rows in case["fields"]:
        built.features[name] = {"type": "categorical", "source": "", "vocab_size": rows, "padding_idx": 0}
    sizes = dict(case["fields"])
    for name, target in case["histories"]:
        built.features[name] = {
            "type": "sequence", "source": "", "vocab_size": sizes[target], "padding_idx": 0,
            "max_len": case["length"], "feature_encoder": None, "share_embedding": target,
        }  # fmt: skip
    built.labels = ["click"]
    built.num_fields = built.get_num_fields()
    built.default_emb_dim = case["dim"]
    built.set_column_index()
    return built


class Run:
    """One model of the zoo, its optimizer and its batches."""

    def __init__(self, case: dict, *, batches: str):
        torch.manual_seed(0)
        settings = {k: zoo_value(k, v) for k, v in case["zoo"].items() if k != "path"}
        module, name = case["zoo"]["path"].rsplit(".", 1)
        self.map = feature_map(case)
        self.model = getattr(importlib.import_module(f"model_zoo.{module}"), name)(
            self.map, embedding_dim=case["dim"], verbose=0, model_root="/nowhere", metrics=["AUC"],
            optimizer="adam", loss="binary_crossentropy", task="binary_classification", **settings,
        )  # fmt: skip
        self.model._max_gradient_norm = 10.0  # what fit() sets
        stored = np.load(batches)
        # A column more than the zoo knows (the lengths of histories) is of no use to it: padding is id 0.
        names = [*self.map.features, "click"]
        count = stored["click"].shape[0]
        columns = {n: torch.from_numpy(stored[n].astype(np.float32 if n == "click" else np.int64)) for n in names}
        self.batches = [OrderedDict((n, columns[n][i]) for n in names) for i in range(count)]
        self.stored = batches

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def train(self, steps: int) -> dict:
        self.model.train()
        with clock() as timed:
            for i in range(steps):
                loss = self.model.train_step(self.batches[i % len(self.batches)])
                loss.item()  # as train_epoch() does
        return timed | {"loss": loss.item()}

    def score(self, steps: int) -> dict:
        self.model.eval()
        with torch.no_grad(), clock() as timed:
            for i in range(steps):
                self.model.forward(self.batches[i % len(self.batches)])["y_pred"].numpy()
        return timed

    def epoch(self, rows: str, batch: int) -> dict:
        """One epoch of the zoo's own loop over its own loader, rows on disk to updated weights."""
        from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader

        self.model._eval_steps = self.model._stop_training = self.model._total_steps = 0
        self.model._eval_steps = 10**9
        with clock() as timed:
            self.model.train_epoch(NpzDataLoader(self.map, rows, batch_size=batch, shuffle=True, num_workers=0))
        return timed


def zoo_value(name: str, value):
    """The zoo joins the fields of a tuple into one behaviour; JSON knows lists only."""
    return [tuple(v) for v in value] if name.startswith("din_") else value


class clock(dict):
    """Wall and processor seconds of a block."""

    def __enter__(self):
        self["cpu"], self["wall"] = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self["cpu"], self["wall"] = time.process_time() - self["cpu"], time.perf_counter() - self["wall"]


def answer(request: dict, run: Run | None) -> tuple[dict, Run | None]:
    action = request.pop("do")
    if action == "about":
        import fuxictr

        torch.set_num_threads(request["threads"])
        return {"torch": torch.__version__, "zoo": fuxictr.__version__, "threads": torch.get_num_threads()}, None
    if action == "open":
        run = Run(request["case"], batches=request["batches"])
        return {"parameters": run.parameters()}, run
    if action == "close":
        return {}, None
    return getattr(run, action)(**request), run


def main(models: str) -> None:
    # A namespace of its own: the folder's __init__ imports every model, with all that each needs.
    sys.modules["model_zoo"] = zoo = types.ModuleType("model_zoo")
    zoo.__path__ = [models]
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr  # what the zoo prints is no answer
    run = None
    for line in sys.stdin:
        said, run = answer(json.loads(line), run)
        answers.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
