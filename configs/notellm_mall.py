"""NoteLLM on the small mall: titles as notes, contrasted with those clicked after them, that also tell their hashtags.

python -m train configs/notellm_mall.py --workdir runs/notellm
python -m train configs/notellm_mall.py --workdir runs/notellm_tags task.contrast=0 task.telling=1

"test" finds the note that people clicked after another in the test days, among all, by pairs that training had not;
"tags" is the share of the hashtags told right, of all notes, those that arrived later among them. The temperature
starts at 1 / 5 and not at the paper's 1 / 20, from which batches of this size do not leave the loss of equal vectors.
Figures: docs/people.md.
"""

from data.mall.notes import MallNotePairs, MallNotes
from data.pipeline import Loader
from modules.content.notellm import NoteLLM
from train.evaluators import Evaluate, Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MRR, Recall
from train.metrics.told import Told
from train.optim import Optimizer
from train.tasks.notes import Notes


def get_config() -> Experiment:
    found = Retrieve(
        source=MallNotePairs(split="test"),
        corpus=MallNotes(),
        target="sought",
        key="item",
        history="seen",
        metrics=(Recall(ks=(10, 50)), MRR()),
    )
    return Experiment(
        model=NoteLLM(log_scale=1.6),
        task=Notes(),
        source=MallNotePairs(),
        loader=Loader(batch_size=128),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=20, lr_schedule="cosine", weight_decay=0.01),
        evals={"test": found, "tags": Evaluate(source=MallNotes(), metrics=(Told(),))},
        steps=300,
    )
