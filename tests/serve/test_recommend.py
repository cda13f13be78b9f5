"""python -m serve recommend: the file that a scorer reads, from a mixture that was trained on a sequence folder."""

import re
from pathlib import Path
from types import SimpleNamespace

import chz
import numpy as np
import pytest

from configs.sequences import mixture
from data.errors import UserError
from data.features import Categorical, Features, Group, Sequence
from data.mall.config import Mall
from data.mall.sources import MallSequences
from data.packing import Packed, Windows
from data.pipeline import Loader
from data.prefixes import Prefixes
from data.sequence_file import SequenceFile
from data.sources import InMemory, SourceConfig
from data.splits import ByUser
from data.transforms.history import NextTargets
from modules.sequential.mixture import Relation
from modules.sequential.sasrec import SASRec
from serve.__main__ import main
from serve.histories import Histories, histories_of, of_folder
from serve.recommend import Ranker, best_listed, best_scored
from serve.trained import Trained
from train.evaluators import RankItems
from train.experiment import Experiment
from train.floors import Floors
from train.loop import train
from train.metrics.ranking import HitRate
from train.metrics.ranks import NO_ITEM
from train.pipeline import run_pipeline
from train.tasks.next_item import NextItem

USERS, ITEMS, LENGTH = 40, 30, 6


def write(folder, *, new=None, seed=0):
    """Walks along a circle of items; `new` gives each item another number."""
    rng = np.random.default_rng(seed)
    new = np.arange(ITEMS + 1) if new is None else new
    lines = []
    for user in range(1, USERS + 1):
        walk = 1 + (rng.integers(ITEMS) + np.arange(rng.integers(4, 12))) % ITEMS
        lines.append(f"{100 + user} {' '.join(str(new[i]) for i in walk)}\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sequences.txt").write_text("".join(lines))
    rows = [f"{new[i]}\tthing {'abcdef'[i % 6]} number{i}\tCircle > {i // 5}\n" for i in range(1, ITEMS + 1)]
    (folder / "items.tsv").write_text("item_id\ttitle\tcategories\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("recommend")
    path = str(write(root / "data"))
    encoder = Experiment(
        model=SASRec(dim=8, depth=1),
        task=NextItem(),
        source=SequenceFile(path=path, max_len=LENGTH),
        loader=Loader(batch_size=16, transforms=(NextTargets(target="target"),)),
        steps=20,
    )
    relations = {name: Relation(listed=8) for name in ("transitions", "words", "linear")}
    pipeline = mixture(path, parts={"encoder": encoder}, relations=relations, max_len=LENGTH)
    found = run_pipeline(pipeline, workdir=root / "run", say=lambda _: None)
    return root, found


def recommend(workdir, output, *options):
    code = main(["recommend", str(workdir), "--output", str(output), *map(str, options)])
    return code, [[int(w) for w in line.split()] for line in output.read_text().splitlines()] if code == 0 else []


def histories(folder):
    lines = [[int(w) for w in line.split()] for line in (folder / "sequences.txt").read_text().splitlines()]
    return {user: items for user, *items in lines}


def test_a_line_for_every_user_in_the_ids_of_the_file(run, tmp_path):
    root, found = run
    code, lines = recommend(root / "run" / "mixture", tmp_path / "top.txt", "--k", 5)
    past = histories(root / "data")
    assert code == 0 and [line[0] for line in lines] == list(past)
    for user, *items in lines:
        assert len(set(items)) == 5 and not set(items) & set(past[user])
        assert all(1 <= item <= ITEMS for item in items)
    # What comes next on the circle is known to counts and to words.
    hits = [past[user][-1] % ITEMS + 1 in items for user, *items in lines]
    assert np.mean(hits) > 0.9 and found["mixture"]["valid/hit_rate@10"] > 0.9


def test_the_final_model_learns_from_the_validation_targets_too(run, tmp_path):
    root, found = run
    assert not any("hit_rate" in name for name in found["final"])
    fitted, final = (Trained(root / "run" / stage) for stage in ("mixture", "final"))
    same = [name for name in fitted.weights if np.array_equal(fitted.weights[name], final.weights[name])]
    assert {"params/of_models", "params/of_relations", "params/log_scale", "params/decay_logit"} <= set(same)
    assert "params/models/0/item/table" not in same and "stats/related/transitions/weights" not in same
    again = Trained(root / "run" / "encoder_again")
    np.testing.assert_array_equal(final.weights["params/models/0/item/table"], again.weights["params/item/table"])
    known = Floors().transitions(*_whole(root / "data"), rows=ITEMS + 2)
    item = 7
    best = np.sort(known.toarray()[item])[::-1][:8]
    listed = np.sort(final.weights["stats/related/transitions/weights"][item])[::-1]
    np.testing.assert_allclose(listed, best, rtol=1e-5)
    code, lines = recommend(final.path, tmp_path / "top.txt", "--k", 5)
    assert code == 0 and len(lines) == USERS


def _whole(folder):
    past = histories(folder)
    items = np.concatenate([np.array(items) + 1 for items in past.values()])
    return items, np.repeat(np.arange(len(past)), [len(items) for items in past.values()])


def test_it_is_the_models_own_ranking_after_the_whole_file(run, tmp_path):
    root, _ = run
    trained = Trained(root / "run" / "mixture")
    past = histories(root / "data")
    users = sorted(past, key=lambda user: (user * 7) % 11)[:9]
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users) + "\n")
    code, lines = recommend(trained.path, tmp_path / "top.txt", "--users", tmp_path / "users.txt", "--k", 4)
    assert code == 0 and [line[0] for line in lines] == users
    forward = trained.forward(max_batch=16)
    for user, *items in lines:
        newest = np.array(past[user][-LENGTH:]) + 1
        batch = {
            "history": np.pad(newest, (0, LENGTH - len(newest)))[None].astype(np.int32),
            "history/length": np.array([len(newest)], np.int32),
        }
        scores = np.array(trained.predict(forward.weights, batch)["scores"][0])
        scores[[0, 1, *(np.array(past[user]) + 1)]] = -np.inf
        assert sorted(scores[np.array(items) + 1], reverse=True) == pytest.approx(sorted(scores)[::-1][:4], abs=1e-5)


def test_other_histories_of_the_same_items(run, tmp_path):
    root, _ = run
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "sequences.txt").write_text("7 3 4 5\n8 29 30\n")
    code, lines = recommend(root / "run" / "mixture", tmp_path / "top.txt", "--data", tmp_path / "new", "--k", 3)
    assert code == 0 and [line[0] for line in lines] == [7, 8]
    assert 6 in lines[0] and 1 in lines[1]


def test_other_numbers_of_items_give_the_same_lists(tmp_path):
    """Relations alone, which have no initialisation: what is recommended is the same thing by its other number."""
    new = np.concatenate([[0], 1 + np.random.default_rng(3).permutation(ITEMS)])
    lists = []
    for name, folder in {"as_is": write(tmp_path / "as_is"), "other": write(tmp_path / "other", new=new)}.items():
        relations = {name: Relation(listed=20) for name in ("transitions", "words")}
        pipeline = mixture(str(folder), parts={}, relations=relations, max_len=LENGTH)
        run_pipeline(pipeline, workdir=tmp_path / f"run_{name}", say=lambda _: None)
        lists.append(recommend(tmp_path / f"run_{name}" / "mixture", tmp_path / f"{name}.txt", "--k", 3)[1])
    for (user, *items), (same, *renamed) in zip(*lists, strict=True):
        assert user == same and [int(new[i]) for i in items] == renamed


def test_an_artefact_gives_the_same_lists(run, tmp_path, capsys):
    root, _ = run
    mixture = root / "run" / "mixture"
    assert main(["export", str(mixture), "--output", str(tmp_path / "export"), "--platforms", "cpu"]) == 0
    options = ("--data", root / "data", "--k", 10)
    one, two = (recommend(m, tmp_path / "top.txt", *options)[1] for m in (mixture, tmp_path / "export"))
    assert len(one) == USERS and np.mean([a == b for a, b in zip(one, two, strict=True)]) > 0.9  # but for equal scores
    assert [{*a} for a in one] == [{*b} for b in two]
    assert recommend(tmp_path / "export", tmp_path / "none.txt")[0] == 2
    assert "name a sequence folder with --data" in capsys.readouterr().err


def test_a_list_leaves_out_what_was_seen_before_the_models_places():
    listed = np.array([[5, 3, 2, 4], [1, 0, 6, 7]])
    found = best_listed(listed, [np.array([3, 5]), np.array([7])], k=2)
    assert found.tolist() == [[2, 4], [6, NO_ITEM]]


def test_of_equal_scores_the_order_decides_and_no_reserved_id_is_listed():
    scores = np.array([[9.0, 9.0, 1.0, 1.0, 2.0, 1.0]])
    found = best_scored(scores, [np.array([4])], order=np.array([5, 3, 2, 4, 0, 1]), k=3)
    assert found.tolist() == [[5, 3, 2]]


def test_of_equally_popular_items_the_one_met_earlier_comes_first():
    histories = Histories(np.array([7, 8]), items=np.array([5, 3, 3, 5, 4]), ends=np.array([0, 3, 5]), shift=1)
    assert histories.order(7).tolist()[:3] == [5, 3, 4]


def test_all_that_is_left_may_be_asked_for_and_no_more(run, tmp_path, capsys):
    root, _ = run
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "sequences.txt").write_text("7 3 4 3\n")
    options = (root / "run" / "mixture", tmp_path / "top.txt", "--data", tmp_path / "new", "--k")
    ((user, *items),) = recommend(*options, 28)[1]
    assert user == 7 and {*items} == {*range(1, ITEMS + 1)} - {3, 4}
    assert recommend(*options, 29)[0] == 2
    assert "user 7 has seen 2 of 30 items, which leaves fewer than 29; lower --k to 28" in capsys.readouterr().err


def test_blocks_of_users_give_the_lines_of_one(run, tmp_path, monkeypatch):
    root, _ = run
    whole = recommend(root / "run" / "mixture", tmp_path / "whole.txt", "--k", 5)[1]
    monkeypatch.setattr("serve.recommend.CELLS", 1)
    assert recommend(root / "run" / "mixture", tmp_path / "blocks.txt", "--k", 5)[1] == whole


def test_an_artefact_whose_lists_are_too_short_is_told_and_leaves_nothing(run, tmp_path, capsys):
    root, _ = run
    export = tmp_path / "export"
    assert main(["export", str(root / "run" / "encoder"), "--output", str(export), "--platforms", "cpu"]) == 0
    assert recommend(export, tmp_path / "top.txt", "--data", root / "data", "--k", 11)[0] == 2
    assert "lists 10 items, fewer than 11 of which are new to user 101; lower --k" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [export]


HISTORY = Sequence(name="history", of=Categorical(name="item", rows=9), length=3)


@pytest.mark.parametrize(
    ("features", "more", "outputs", "message"),
    [
        (Features(all=(HISTORY,)), ("age",), ("scores",), "run also reads age: recommend serves models of one"),
        (Features(all=(HISTORY.of,)), (), ("scores",), "run reads no sequence of ids: recommend serves"),
        (Features(all=(HISTORY,)), (), ("score",), "run ranks no whole catalogue: recommend serves next-item models"),
    ],
)
def test_models_that_rank_otherwise_are_told(features, more, outputs, message):
    forward = SimpleNamespace(inputs=["history", "history/length", *more], outputs=lambda: outputs)
    with pytest.raises(UserError, match=message):
        Ranker(forward, features=features, path=Path("run"))


@chz.chz
class Few(SourceConfig):
    users: tuple[int, ...] = ()

    def make(self):
        history = {"history": np.full((4, 3), 2), "history/length": np.full(4, 3)}
        if not self.users:
            return InMemory(history, features=Features(all=(HISTORY,)))
        return InMemory({**history, "user": np.array(self.users)}, features=Features(all=(HISTORY, Group(name="user"))))


def trained_on(source, **evals):
    return SimpleNamespace(experiment=SimpleNamespace(source=source, evals=evals), named_source=evals.get)


def test_rows_that_are_not_one_a_user_are_no_histories():
    with pytest.raises(UserError, match=r"Few has history: recommending reads one sequence of ids a user; .*--data"):
        histories_of(trained_on(Few()))
    with pytest.raises(UserError, match=r"Few has several rows of one user: recommending reads one a user; .*--data"):
        histories_of(trained_on(Few(users=(1, 2, 2, 3))))
    assert histories_of(trained_on(Few(users=(4, 2, 1, 3)))).users.tolist() == [4, 2, 1, 3]


@pytest.mark.parametrize(
    "pieces",
    [
        lambda file: Prefixes(of=file),
        lambda file: Windows(source=file, length=3, stride=1),
        lambda file: Packed(source=file, length=9),
        lambda file: ByUser(source=Prefixes(of=file), user="user", part="valid"),
    ],
)
def test_a_run_on_pieces_of_a_file_recommends_after_all_of_it_in_its_ids(run, pieces):
    path = str(run[0] / "data")
    source, valid = pieces(SequenceFile(path=path)), SequenceFile(path=path, split="valid")
    whole = of_folder(Path(path))
    runs = [trained_on(source), trained_on(source, valid=valid)]
    for run_of in (*runs, *(trained_on(Few(), valid=judged) for judged in (valid, source))):
        found = histories_of(run_of)
        assert found.shift == whole.shift
        for name in ("users", "items", "ends"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("users", "options", "message"),
    [
        ("101\n999\n", (), r"users.txt:2: user 999 has no history"),
        ("101\nbob\n", (), r"users.txt:2: 'bob' is no user"),
        ("101\n101\n", (), r"users.txt:2: user 101 was named before"),
        ("101\n", ("--k", "30"), r"lower --k to"),
    ],
)
def test_what_cannot_be_done_is_named(run, tmp_path, capsys, users, options, message):
    root, _ = run
    (tmp_path / "users.txt").write_text(users)
    output = tmp_path / "top.txt"
    assert recommend(root / "run" / "mixture", output, "--users", tmp_path / "users.txt", *options)[0] == 2
    assert not output.exists() and not list(tmp_path.glob(".top*"))

    assert re.search(message, capsys.readouterr().err)


def test_items_that_the_model_lacks_are_named(run, tmp_path, capsys):
    root, _ = run
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "sequences.txt").write_text("7 3 4 31\n")
    assert recommend(root / "run" / "mixture", tmp_path / "top.txt", "--data", tmp_path / "new")[0] == 2
    assert "item 31, the model knows 30 items" in capsys.readouterr().err


def test_a_run_on_the_mall(tmp_path):
    mall = Mall(size="tiny")
    valid, test = (MallSequences(mall=mall, split=split, max_len=8) for split in ("valid", "test"))
    train(
        Experiment(
            model=SASRec(dim=8, depth=1),
            task=NextItem(),
            source=MallSequences(mall=mall, max_len=8),
            loader=Loader(batch_size=16, transforms=(NextTargets(),)),
            evals={
                name: RankItems(source=source, history="history", metrics=(HitRate(),))
                for name, source in (("valid", valid), ("test", test))
            },
            steps=2,
        ),
        workdir=tmp_path / "run",
        say=lambda _: None,
    )
    code, lines = recommend(tmp_path / "run", tmp_path / "top.txt", "--k", 10)
    source = test.make()
    assert code == 0 and [line[0] for line in lines] == source.columns["user"].tolist()
    for row, (_, *items) in enumerate(lines):
        seen = {*source.columns["history"][row, : source.columns["history/length"][row]].tolist()}
        seen.add(int(source.columns["target"][row]))
        assert not {item + 2 for item in items} & seen and len(set(items)) == 10
