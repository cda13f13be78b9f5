"""Ada-Retrieval on the mall: a hundred products in five rounds, each of which sees what those before it found.

python -m train configs/ada_retrieval_mall.py --workdir runs/ada_retrieval

SASRec is trained alone ("backbone"); "adapted" goes on from it with both adapters, "single" as long without them, in
one round of a hundred: without adapters five rounds are that list to the bit, at five times the cost. "at_once" learns
all from scratch. A round encodes the history anew, so that the encoder is narrower than SASRec's own config has it and
reads twenty products. Full ranking, the history left out. Figures: README, table of systems.
"""

import chz

from configs import sasrec_mall
from data.mall.config import Mall
from data.mall.sources import MallSequences, Split
from data.pipeline import Loader
from data.transforms.history import RandomPrefix
from modules.retrieval.ada_retrieval import AdaRetrieval
from modules.sequential.sasrec import SASRec
from train.experiment import Experiment
from train.init_from import InitFrom
from train.metrics.ranking import NDCG, Coverage, HitRate
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.retrieve_lists import RankLists
from train.tasks.adaptive_rounds import AdaptiveRounds


def get_config() -> Pipeline:
    mall, length = Mall(size="small"), 20
    encoder = SASRec(dim=32)
    source = MallSequences(mall=mall, max_len=length)
    backbone = chz.replace(sasrec_mall.get_config(), model=encoder, source=source, evals={})

    def ranking(split: Split) -> RankLists:
        return RankLists(
            source=MallSequences(mall=mall, split=split, max_len=length),
            catalogue=mall.n_items,
            metrics=(HitRate(ks=(20, 50, 100)), NDCG(ks=(50, 100)), Coverage(ks=(100,))),
        )

    model = AdaRetrieval(backbone=encoder)
    at_once = Experiment(
        model=model,
        task=AdaptiveRounds(),
        source=source,
        loader=Loader(batch_size=128, transforms=(RandomPrefix(),)),
        optimizer=Optimizer(lr=1e-3),
        evals={"valid": ranking("valid"), "test": ranking("test")},
        steps=200,
    )
    adapted = chz.replace(at_once, init_from=InitFrom(workdir="@backbone", rename=((r"^", "backbone/"),)))
    whole = model.rounds * model.per_round
    single = chz.replace(adapted, model=chz.replace(model, adapters="none", rounds=1, per_round=whole))
    longer = chz.replace(at_once, steps=320)  # in the time of backbone and adapters together
    rows = {"single": single, "adapted": adapted, "at_once": longer}
    return Pipeline(
        stages={
            "backbone": Train(experiment=backbone),
            **{name: Train(experiment=experiment) for name, experiment in rows.items()},
            "gain": Compare(
                title="A hundred products in one round and in five that adapt",
                rows={name.replace("_", " "): f"@{name}" for name in rows},
                metrics=("test/hit_rate@50", "test/hit_rate@100", "test/ndcg@100", "test/coverage@100"),
            ),
        }
    )
