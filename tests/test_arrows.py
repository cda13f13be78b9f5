"""Imports run one way: modules and data know nothing of ours outside themselves, train joins them, serve reads."""

import ast

import pytest

OURS = {"modules", "train", "serve", "data", "configs", "tests"}
ALLOWED = {
    "modules": {"modules"},
    "data": {"data"},
    "train": {"train", "modules", "data"},
    "serve": {"serve", "train", "modules", "data"},
    "configs": {"configs", "train", "serve", "modules", "data"},
}
# serve never trains: of train it may read what describes, restores and runs a forward pass, and stages.
SERVE_READS = {
    "train.calibrate",  # a stage: it fits two numbers or a step function, no weights
    "train.calibration",
    "train.checkpoint",
    "train.experiment",
    "train.program",
    "train.snapshot",
    "train.workdir",
    "train.sharding",
    "train.pipeline",
    "train.report_page",  # what reports look like
    "train.metrics.ranks",  # lists for people are ordered as the evaluation orders them
    "train.ways",  # an evaluator asks an index for its lists as it asks any other way
}
BANNED = {"tensorflow", "torch", "keras"}
# Behind the extra `tf`, within a function: no other file, and no import of this one, may bring TensorFlow in.
BEHIND_AN_EXTRA = {"serve/targets/savedmodel.py": "tensorflow"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_follow_the_arrows(root, room):
    files = sorted((root / room).rglob("*.py"))
    assert files
    wrong = []
    for path in files:
        for line, name in imported(path):
            top = name.split(".")[0]
            here = f"{path.relative_to(root)}:{line} imports {name}"
            excused = BEHIND_AN_EXTRA.get(str(path.relative_to(root))) == top
            if (top in BANNED and not excused) or (top in OURS and top not in ALLOWED[room]):
                wrong.append(here)
            if (
                room == "serve"
                and top == "train"
                and not any(name == s or name.startswith(s + ".") for s in SERVE_READS)
            ):
                wrong.append(here)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", sorted(BEHIND_AN_EXTRA))
def test_an_extra_is_imported_within_a_function(root, file):
    tree = ast.parse((root / file).read_text())
    names = {node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert not any(BEHIND_AN_EXTRA[file] in ast.unparse(node) for node in names)


def test_package_markers_are_empty(root):
    for room in ALLOWED:
        full = [str(p) for p in (root / room).rglob("__init__.py") if p.read_text().strip()]
        assert not full
