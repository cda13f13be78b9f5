"""The command line: overrides by dotted path, one-line errors with the nearest right name, exit codes."""

import importlib
import json
import re
import subprocess
import sys

import pytest

from data.errors import UserError
from train.__main__ import main
from train.command import describe, help_text, read_config
from train.experiment import Experiment
from train.pipeline import Pipeline
from train.snapshot import dump, load


@pytest.fixture
def dnn(root):
    return root / "configs" / "dnn_mall.py"


def test_overrides_reach_any_depth_and_keep_their_types(dnn):
    config = read_config(
        dnn, ["model.dim=8", "steps=7", "model.mlp.widths=3,4", "evals.valid.every=5", "optimizer.ema=0.9"]
    )
    assert isinstance(config, Experiment)
    assert (config.model.dim, config.steps, config.model.mlp.widths) == (8, 7, (3, 4))
    assert config.evals["valid"].every == 5 and config.optimizer.ema == 0.9


def test_a_class_may_be_exchanged_by_name(dnn):
    config = read_config(
        dnn, ["optimizer.rows=table", "optimizer.row_rule=RowwiseAdagrad", "optimizer.row_rule.eps=1e-6"]
    )
    assert type(config.optimizer.row_rule).__name__ == "RowwiseAdagrad"
    assert config.optimizer.row_rule.eps == 1e-6


SEARCHED = """
from configs.dnn_mall import get_config as dnn
from train.pipeline import Pipeline
from train.protocol.search import Search
from train.protocol.space import Choices

def get_config():
    space = {"model.dim": Choices(values=(8, 16)), "optimizer.lr": Choices(values=(1e-3, 3e-3))}
    return Pipeline(stages={"search": Search(experiment=dnn(), space=space, trials=2)})
"""


def test_a_search_space_keeps_its_dotted_names(tmp_path):
    file = tmp_path / "searched.py"
    file.write_text(SEARCHED)
    search = read_config(file, ["stages.search.trials=3", "stages.search.experiment.steps=9"]).stages["search"]
    assert list(search.space) == ["model.dim", "optimizer.lr"] and search.space["model.dim"].values == (8, 16)
    assert (search.trials, search.experiment.steps) == (3, 9)
    assert "stages.search.space=" in describe(read_config(file, [])) and "space" in help_text(read_config(file, []))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("modle.dim=8", "Did you mean 'model.dim'"),
        ("model.dmi=8", "Did you mean 'model.dim'"),
        ("model.dim=wide", "Could not .* 'wide'"),
        ("precision=float16", "precision"),
        ("loader.batch_size=0", "batch_size"),
        ("optimizer.clip_norm=-1", "clip_norm"),
    ],
)
def test_wrong_overrides_are_one_line_and_exit_two(override, says, dnn, capsys):
    assert main([str(dnn), override]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert re.search(says, error), error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:\n", r"broken.py:1: "),
        ("import nowhere\n", "nowhere"),
        ("x = 1\n", "defines no get_config"),
        ("def get_config():\n    return 3\n", "returned a int"),
    ],
)
def test_wrong_files_are_one_line_and_exit_two(text, says, tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_a_missing_file_names_the_nearest(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert main(["configs/dnn_mal.py"]) == 2
    assert "did you mean configs/dnn_mall.py" in capsys.readouterr().err


def test_words_that_mean_nothing_are_refused(dnn, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(dnn), "--stesp", "3"])
    assert caught.value.code == 2
    assert "--stesp" in capsys.readouterr().err


def test_show_prints_what_could_be_given_back(dnn, capsys):
    assert main([str(dnn), "--show", "model.dim=8"]) == 0
    shown = capsys.readouterr().out
    assert "model.dim=8" in shown.splitlines()
    given_back = [
        line
        for line in shown.splitlines()
        if re.match(r"(steps|seed|model\.dim|optimizer\.lr|loader\.batch_size)=", line)
    ]
    assert len(given_back) == 5
    assert read_config(dnn, given_back) == read_config(dnn, ["model.dim=8"])


def test_help_lists_fields_with_their_docs(dnn):
    text = help_text(read_config(dnn, []))
    assert "optimizer.clip_norm" in text and "highest global norm" in text


def test_help_without_a_config_shows_the_examples(capsys):
    assert main(["--help"]) == 0
    assert "python -m train configs/din_mall.py" in capsys.readouterr().out


def test_stored_configs_rebuild_equal(root):
    for path in sorted((root / "configs").glob("*_mall.py")):
        config = read_config(path, [])
        assert load(json.loads(json.dumps(dump(config)))) == config


def test_the_default_config_is_the_funnel(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["--show"]) == 0
    assert "stages.encoder" in capsys.readouterr().out
    assert isinstance(read_config(root / "configs/quickstart.py", []), Pipeline)


def test_stages_and_rows_keep_the_order_of_the_file(root):
    """chz gave a mapping's keys in the order of a set, so that the first row of a table was any row."""
    path = root / "configs/bars_frappe.py"
    written = importlib.import_module("configs.bars_frappe").get_config()
    read = read_config(path, ["stages.dnn.seeds=7", "stages.leaderboard.rows.LR.paper=x"])
    assert list(read.stages) == list(written.stages)
    assert list(read.stages["leaderboard"].rows) == list(written.stages["leaderboard"].rows)
    assert read.stages["dnn"].seeds == (7,)
    assert read.order()[-2:] == ["speed", "leaderboard"]


def test_describe_is_one_line_a_field(dnn):
    lines = describe(read_config(dnn, [])).splitlines()
    assert all(re.match(r"[\w.]+=", line) for line in lines)


def test_a_folder_that_is_no_workdir_is_left_alone(root, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    command = [sys.executable, "-m", "train", "configs/dnn_mall.py", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a workdir" in done.stderr and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_our_errors_are_shortened(dnn, monkeypatch):
    monkeypatch.setattr("train.command.run_config", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([str(dnn)])
    monkeypatch.setattr("train.command.run_config", lambda *a, **k: (_ for _ in ()).throw(UserError("mend it")))
    assert main([str(dnn)]) == 2
