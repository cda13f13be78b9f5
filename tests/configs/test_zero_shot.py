"""What one catalogue's users teach of words ranks another catalogue, of other words, better than its floor."""

import chz
import numpy as np

from configs.sequences import by_words_of
from train.pipeline import run_pipeline

LINES, KINDS, USERS = 12, 6, 150


def shop(folder, *, rng, letters):
    """Titles name a line of products and what a product is; people stay with a line, words of kinds lead elsewhere."""
    folder.mkdir()
    lines = ["".join(rng.choice(list(letters), 6)) for _ in range(LINES)]
    kinds = [" ".join("".join(rng.choice(list(letters), 5)) for _ in range(3)) for _ in range(KINDS)]
    told = [f"{n + 1}\t{lines[n // KINDS]} {kinds[n % KINDS]}\tAll" for n in range(LINES * KINDS)]
    (folder / "items.tsv").write_text("\n".join(["item_id\ttitle\tcategories", *told]) + "\n")
    line = rng.integers(0, LINES, USERS)
    taken = [1 + at * KINDS + rng.permutation(KINDS)[:2] for at in line]
    (folder / "sequences.txt").write_text("".join(f"{u + 1} {' '.join(map(str, s))}\n" for u, s in enumerate(taken)))
    return str(folder)


def test_how_words_matter_goes_from_one_catalogue_to_another(tmp_path, rng):
    here, there = (
        shop(tmp_path / "here", rng=rng, letters="abcdef"),
        shop(tmp_path / "there", rng=rng, letters="ghijkl"),
    )
    pipeline = by_words_of(there, path=here)
    stages = {}
    for name, stage in pipeline.stages.items():
        experiment = stage.experiment
        model = chz.replace(experiment.model, listed=24)
        loader = chz.replace(experiment.loader, batch_size=64)
        stages[name] = chz.replace(stage, experiment=chz.replace(experiment, model=model, loader=loader))
    stages["there"] = chz.replace(stages["there"], experiment=chz.replace(stages["there"].experiment, steps=60))
    results = run_pipeline(chz.replace(pipeline, stages=stages), workdir=tmp_path / "run", say=lambda line: None)
    found = results["here"]
    assert found["valid/hit_rate@5"] > 0.9 > found["floor/tfidf/hit_rate@5"] + 0.1
    assert np.isfinite(found["valid/ndcg@10"])
