"""What the configs of published sequence files share: leave-last-two, full ranking, floors by the same evaluator."""

from collections.abc import Mapping
from typing import Any, Literal

import chz

from data.pipeline import Buckets, Loader
from data.prefixes import Prefixes
from data.sequence_file import LENGTH, SequenceFile
from data.sources import SourceConfig
from data.splits import ByUser
from data.transforms.history import NextTargets, UniformNegatives
from data.transforms.target_counts import TargetCounts
from modules.sequential.mixture import Mixture, Relation
from modules.sequential.sasrec import SASRec
from modules.sequential.sasrec_content import SASRecContent
from modules.sequential.word_pairs import WordPairs
from train.evaluators import Evaluator, RankItems, Slice
from train.experiment import EarlyStop, Experiment
from train.floors import RankFloors
from train.init_from import InitFrom
from train.item_knowledge import PairFacts, RelatedItems, WordVectors
from train.metrics.ranking import NDCG, HitRate
from train.optim import Optimizer
from train.pipeline import Pipeline, Train
from train.pretrained import Several
from train.tasks.next_item import NextItem
from train.tasks.rank_next import RankNext

METRICS = (HitRate(ks=(5, 10, 20)), NDCG(ks=(5, 10, 20)))
SLICES = {
    "short": Slice(feature="history/length", below=5),
    "long": Slice(feature="history/length", at_least=20),
    "new": Slice(feature="target_count", equals=0),
    "rare": Slice(feature="target_count", at_least=1, below=6),
    "frequent": Slice(feature="target_count", at_least=50),
}
"""By what a user did before, and by how often training saw what is sought."""


def folder(name: str) -> str:
    return f"$ADLOOM_DATA/seq/{name}"


def ranking(path: str, *, max_len: int, every: int | None, words: bool = True) -> Mapping[str, Evaluator]:
    """The model's ranking of validation targets, and the floors' of the same rows."""
    train, valid = (SequenceFile(path=path, split=split, max_len=max_len) for split in ("train", "valid"))
    shared: dict[str, Any] = {"source": valid, "history": "history", "metrics": METRICS, "batch_size": 512}
    return {
        "valid": RankItems(**shared, every=every),
        "floor": RankFloors(**shared, train=train, texts=path if words else None),
    }


def amazon(name: str, *, seed: int = 0) -> Experiment:
    """SASRec with the words of its items; 2,048 negatives that a batch shares, in place of all 12,000 items."""
    path = folder(name)
    return Experiment(
        model=SASRecContent(dropout=0.4, heads=2),
        task=NextItem(objective="sampled_softmax", pooled=True),
        source=SequenceFile(path=path),
        loader=Loader(
            batch_size=256,
            transforms=(NextTargets(target="target"), UniformNegatives(count=8, shared=True)),
            buckets=Buckets(widths=(5, 10, 20)),
            seed=seed,
        ),
        optimizer=Optimizer(
            algorithm="adamw", lr=2e-3, lr_schedule="cosine", warmup_steps=100, final_scale=0.1, weight_decay=0.01
        ),
        evals=ranking(path, max_len=50, every=700),
        early_stop=EarlyStop(metric="valid/ndcg@10", patience=3),
        init_from=WordVectors(path=path),
        steps=2100,
        seed=seed,
    )


def word_pairs(path: str, *, split: Literal["train", "valid"] = "train") -> Experiment:
    """How an item follows another by words, from every beginning of every history."""
    return Experiment(
        model=WordPairs(),
        task=RankNext(),
        source=Prefixes(of=SequenceFile(path=path, split=split)),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(algorithm="adamw", lr=0.02, lr_schedule="cosine", weight_decay=0.01),
        init_from=PairFacts(path=path),
        steps=1500,
    )


def amazon_relations() -> Mapping[str, Relation]:
    return {"transitions": Relation(), "words": Relation(newest=10), "phrases": Relation(newest=10, decay=0.5)}


def movies(*, seed: int = 0) -> Experiment:
    """SASRec over the newest 100 ratings, by the softmax over all films."""
    path, length = folder("ml-1m-sas"), 100
    return Experiment(
        model=SASRec(heads=2, dropout=0.2),
        task=NextItem(objective="softmax", chunk=2),
        source=SequenceFile(path=path, max_len=length),
        loader=Loader(
            batch_size=128,
            transforms=(NextTargets(target="target"),),
            buckets=Buckets(widths=(25, 50, 75)),
            seed=seed,
        ),
        optimizer=Optimizer(lr=3e-3, b2=0.98, lr_schedule="cosine", warmup_steps=100, final_scale=0.05),
        evals=ranking(path, max_len=length, every=500, words=False),
        steps=2000,
        seed=seed,
    )


def movie_relations() -> Mapping[str, Relation]:
    return {"transitions": Relation(listed=512), "linear": Relation(listed=1024, scale=300.0)}


def mixture(path: str, *, parts: Mapping[str, Experiment], relations: Mapping[str, Relation], max_len: int) -> Pipeline:
    """The parts, a mixture of them whose few weights are fitted on half of the users' validation targets, and `final`.

    Of "mixture", `valid` ranks the targets of the other half of the users, on which nothing was fitted, and `all` those
    of both halves. "final" is what is to be judged on the items after the file: parts and relations learn once more
    from the whole file, validation targets included, as long as before; the mixture's weights stay. It has no figures
    of its own, since no target is left for it.
    """
    train, valid = (SequenceFile(path=path, split=split, max_len=max_len) for split in ("train", "valid"))
    halves = {part: ByUser(source=valid, part=part, user="user", valid=0.5, test=0.0) for part in ("train", "valid")}
    shared: dict[str, Any] = {"history": "history", "metrics": METRICS, "batch_size": 256}
    fitted = Experiment(
        model=Mixture(models=tuple(part.model for part in parts.values()), relations=relations),
        task=RankNext(top_k=100),
        source=halves["train"],
        loader=Loader(batch_size=256),
        optimizer=Optimizer(lr=0.1, lr_schedule="cosine", lr_scale=((r"^models/", 0.0),) if parts else ()),
        evals={
            "valid": RankItems(source=halves["valid"], **shared),
            "all": RankItems(source=valid, slices=SLICES, transforms=(TargetCounts(seen=train),), **shared),
        },
        init_from=Several(of=(*_weights(tuple(parts)), RelatedItems(source=train, texts=path))),
        steps=100,
    )
    again = {
        f"{name}_again": chz.replace(part, source=_whole(part.source), evals={}, early_stop=None)
        for name, part in parts.items()
    }
    start = (InitFrom(workdir="@mixture"), *_weights(tuple(again)), RelatedItems(source=valid, texts=path))
    final = chz.replace(fitted, source=valid, evals={}, init_from=Several(of=start), steps=0)
    experiments = {**parts, "mixture": fitted, **again, "final": final}
    return Pipeline(stages={name: Train(experiment=experiment) for name, experiment in experiments.items()})


def _whole(source: SourceConfig) -> SourceConfig:
    """The same rows of the whole file, validation targets included."""
    if isinstance(source, Prefixes):
        return chz.replace(source, of=_whole(source.of))
    return chz.replace(source, split="valid")


def _weights(stages: tuple[str, ...]) -> tuple[InitFrom, ...]:
    """Each stage's weights as those of the mixture's part of its place."""
    return tuple(
        InitFrom(workdir=f"@{stage}", rename=((r"^(stats/)?", rf"\1models/{index}/"),))
        for index, stage in enumerate(stages)
    )


def by_words_of(other: str, *, path: str) -> Pipeline:
    """How an item follows another is learned from one catalogue's users by words, and ranks another catalogue."""
    there = word_pairs(other, split="valid")
    here = chz.replace(
        there,
        source=SequenceFile(path=path, split="valid"),
        evals=ranking(path, max_len=LENGTH, every=None),
        init_from=Several(of=(InitFrom(workdir="@there"), PairFacts(path=path))),
        steps=0,
    )
    return Pipeline(stages={"there": Train(experiment=there), "here": Train(experiment=here)})
