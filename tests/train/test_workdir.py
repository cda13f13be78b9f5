import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from data.errors import UserError
from train.workdir import Workdir, config_diff, read_json, write_json

HOLD = """
import os, sys, time
from train.workdir import Workdir
workdir = Workdir(sys.argv[1])
if len(sys.argv) > 2 and os.fork() == 0:
    time.sleep(60)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(root, tmp_path):
    """Starts processes that hold the lock of a workdir, and ends them."""
    started = []

    def hold(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), *words]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_new_folder_becomes_a_workdir_and_opens_again(tmp_path):
    with Workdir(tmp_path / "a" / "run") as workdir:
        assert workdir.read_config() is None
        workdir.write_config({"steps": 3})
        workdir.write_features({"features": []})
    with Workdir(tmp_path / "a" / "run") as workdir:
        assert workdir.read_config() == {"steps": 3}
        assert workdir.read_features() == {"features": []}
    assert Workdir(tmp_path / "a" / "run", access="read").read_config() == {"steps": 3}


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for access in ("own", "read"):
        with pytest.raises(UserError, match=r"is not a workdir \(no config.json\)"):
            Workdir(tmp_path, access=access)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(UserError, match="is a file"):
        Workdir(tmp_path / "letter.txt")


def test_a_run_killed_before_its_config_was_written_can_start_again(tmp_path):
    Workdir(tmp_path / "run").close()
    with Workdir(tmp_path / "run") as workdir:
        assert workdir.read_config() is None


def test_reading_makes_nothing_and_writing_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a workdir"):
        Workdir(tmp_path / "run", access="read")
    assert not (tmp_path / "run").exists()
    with Workdir(tmp_path / "run") as workdir:
        workdir.write_config({})
        with pytest.raises(ValueError, match="opened for reading"):
            Workdir(tmp_path / "run", access="read").write_config({})


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path, holder):
    first = holder()
    with pytest.raises(UserError, match=rf"in use by pid {first.pid} on \S+; ") as caught:
        Workdir(tmp_path / "run")
    assert "\n" not in str(caught.value)
    Workdir(tmp_path / "run", access="share")
    first.kill()
    first.wait()
    Workdir(tmp_path / "run").close()


def test_a_worker_that_outlives_its_run_does_not_hold_the_lock(tmp_path, holder):
    first = holder("and a forked child")
    first.kill()
    first.wait()
    with Workdir(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").read_text().startswith(f"pid {os.getpid()} on ")


def test_diff_of_nested_configs():
    old = {"a": {"b": 1, "c": [1, 2]}, "steps": 10, "gone": None, "flag": 1}
    new = {"a": {"b": 2, "c": (1, 3)}, "steps": 10, "new": {"x": "y"}, "flag": True}
    assert config_diff(old, new) == [
        "a.b: 1 -> 2",
        "a.c.1: 2 -> 3",
        "gone: null -> (absent)",
        "flag: 1 -> true",
        'new: (absent) -> {"x": "y"}',
    ]
    assert config_diff(old, json.loads(json.dumps(old))) == []


CONFIG = {"model": {"dim": 16}, "steps": 10, "log": {"every": 5}, "checkpoint": {"every": 3}}


def test_the_same_config_resumes_and_another_is_refused(tmp_path):
    with Workdir(tmp_path / "run") as workdir:
        assert workdir.check_config(CONFIG) == []
        assert workdir.check_config(CONFIG) == []
        with pytest.raises(UserError, match=r"(?s)  model\.dim: 16 -> 32\n.*--fork NEW") as caught:
            workdir.check_config({**CONFIG, "model": {"dim": 32}, "log": {"every": 1}})
        assert "log.every" not in str(caught.value)
        for fewer in (9, None, "20", True):
            with pytest.raises(UserError, match="steps: 10"):
                workdir.check_config({**CONFIG, "steps": fewer})
        assert workdir.read_config() == CONFIG


def test_logging_checkpoints_and_more_steps_may_change_and_are_stored(tmp_path):
    said = []
    new = {**CONFIG, "steps": 20, "log": {"every": 1}, "checkpoint": {"every": None}}
    with Workdir(tmp_path / "run") as workdir:
        workdir.check_config(CONFIG)
        workdir.check_config(new, report=said.append)
        assert workdir.read_config() == new
    expected = ["steps: 10 -> 20", "log.every: 5 -> 1", "checkpoint.every: 3 -> null"]
    assert said == [f"config changed: {line}" for line in expected]


def test_a_fork_goes_on_apart(tmp_path):
    with Workdir(tmp_path / "run") as workdir:
        workdir.write_config(CONFIG)
        workdir.write_features([1])
        for name in ("3", "6", "corrupt-4", "7.orbax-checkpoint-tmp"):
            (workdir.checkpoints / name).mkdir(parents=True)
            (workdir.checkpoints / name / "data").write_text(name)
        (workdir.path / "metrics.jsonl").write_text("")
        with workdir.fork(tmp_path / "forks" / "new") as fork:
            fork.write_config({**CONFIG, "steps": 1})
            assert sorted(p.name for p in fork.checkpoints.iterdir()) == ["3", "6"]
            assert (fork.checkpoints / "6" / "data").read_text() == "6"
            assert fork.read_features() == [1]
            assert not (fork.path / "metrics.jsonl").exists()
            with pytest.raises(UserError, match="in use"):
                Workdir(tmp_path / "forks" / "new")
        assert workdir.read_config() == CONFIG
        with pytest.raises(UserError, match=r"cannot fork .* not empty"):
            workdir.fork(tmp_path / "forks" / "new")
    assert [p.name for p in (tmp_path / "forks").iterdir()] == ["new"]


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "x.json", value={"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", value={"a": object()})
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_torn_json_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        Workdir(tmp_path).read_config()
