"""What a space of the mall's pictures and titles knows, beyond retrieval: evaluators that configs share."""

from data.mall.classes import MallClasses, MallPrompts
from data.mall.config import Mall
from data.mall.sources import MallPairs, Split
from train.class_names import ClassNames
from train.contact_sheet import ContactSheet
from train.evaluators import Evaluator
from train.linear_probe import LinearProbe
from train.metrics.ranking import MedianRank, Recall
from train.space import Space

NAMED = ("leaf", "colour", "pattern", "theme")
"""What a picture shows."""


def picture_and_title(mall: Mall) -> dict[str, Evaluator]:
    """Of models that give "item" of a picture and "query" of a title, on products that no training pair shows."""

    def classed(split: Split) -> MallClasses:
        return MallClasses(of=MallPairs(mall=mall, split=split), mall=mall, classes=NAMED)

    return {
        "names": ClassNames(source=classed("test"), prompts={n: MallPrompts(of=n, mall=mall) for n in NAMED}),
        "probe": LinearProbe(source=classed("test"), support=classed("train"), labels=NAMED),
        "space": Space(
            source=MallPairs(mall=mall, split="test"),
            target="spu",
            key="spu",
            metrics=(Recall(ks=(1, 10)), MedianRank()),
            domains=("query", "item"),
        ),
        "neighbours": ContactSheet(source=classed("test"), key="spu"),
    }
