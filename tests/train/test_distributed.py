"""Two processes of one device train to the parameters of one process with two devices, and hand over to it."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from train.checkpoint import load_weights

CONFIG = """
from data.mall.config import Mall
from data.mall.sources import MallClicks
from data.pipeline import Loader
from modules.ctr.dnn import DNN
from train.checkpoint import Checkpointing
from train.evaluators import Evaluate
from train.experiment import Experiment
from train.metrics.auc import AUC
from train.tasks.pointwise import Pointwise


def get_config() -> Experiment:
    mall = Mall(size="tiny")
    return Experiment(
        model=DNN(dim=4),
        task=Pointwise(),
        source=MallClicks(mall=mall, history=4),
        loader=Loader(batch_size=64),
        evals={"valid": Evaluate(source=MallClicks(mall=mall, split="valid", history=4), metrics=(AUC(),))},
        steps=6,
        checkpoint=Checkpointing(every=4),
    )
"""


def start(root, config, workdir, *words: str, devices: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "train", str(config), "--workdir", str(workdir), *words]
    flags = f"--xla_force_host_platform_device_count={devices}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=root, env={**os.environ, "XLA_FLAGS": flags}, **pipes)


def finish(*processes: subprocess.Popen) -> list[str]:
    """What each said, once all have ended well; none is left behind."""
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def assert_close(a, b) -> None:
    one, two = load_weights(a[0], step=a[1])["params"], load_weights(b[0], step=b[1])["params"]
    assert one.keys() == two.keys()
    for name in one:
        # The same sum over two devices: only its last bit may depend on who adds.
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6, err_msg=name)


# Each process counts the rows by itself, and both lower the rate and settle the tables alike.
REGULARISED = (
    "optimizer.rows=table",
    "optimizer.row_rule.mini_batch_aware=0.5",
    "optimizer.row_rule.decay=1.0",
    "plateau=Plateau",
    "plateau.metric=valid/auc",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), REGULARISED], ids=["dense", "regularised rows"])
def test_two_processes_train_as_one_and_hand_over_to_it(root, tmp_path, words):
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = ["--coordinator", address, "--processes", "2", "steps=4", *words]
    pair = [start(root, config, tmp_path / "pair", *together, "--process", str(i), devices=1) for i in range(2)]
    outputs = finish(*pair)
    assert "2 cpu devices" in outputs[0]
    finish(start(root, config, tmp_path / "alone", *words, devices=2))
    assert "valid/auc" in outputs[0] and "valid/auc" not in outputs[1]
    pair_at, alone_at = (tmp_path / name / "checkpoints" for name in ("pair", "alone"))
    assert_close((pair_at, 4), (alone_at, 4))

    first = load_weights(alone_at, step=4)["params"]
    last = load_weights(alone_at, step=6)["params"]
    assert any(np.abs(first[name] - last[name]).max() > 1e-4 for name in first)  # two steps are seen by assert_close

    (resumed,) = finish(start(root, config, tmp_path / "pair", *words, devices=2))
    assert "resumed at step 4" in resumed
    assert_close((pair_at, 6), (alone_at, 6))
