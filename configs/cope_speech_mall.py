"""COPE 1.1 on the mall: videos and live streams have what is left of their speech once a cleaner has been over it.

python -m train configs/cope_speech_mall.py --workdir runs/cope_speech
python -m train configs/cope_speech_mall.py --workdir runs/cope_raw ...asr=raw
python -m train configs/cope_speech_mall.py --workdir runs/cope_weak ...cleaner.error=0.1

The cleaner keeps the catalogue's words; data.speech.Prompted asks a language model of one's own instead. In a tenth
of the clips nobody speaks. Figures: README, table of systems.
"""

import chz

from configs import cope_mall
from data.sources import SourceConfig
from train.evaluators import Evaluator
from train.experiment import Experiment
from train.space import Space


def get_config() -> Experiment:
    base = cope_mall.get_config()

    def heard(source: SourceConfig) -> SourceConfig:
        return chz.replace(source, asr="clean")

    def measured(evaluator: Evaluator) -> Evaluator:
        evaluator = chz.replace(evaluator, source=heard(evaluator.source))
        if not isinstance(evaluator, Space) or evaluator.seen is None:
            return evaluator
        return chz.replace(evaluator, seen=heard(evaluator.seen))

    return chz.replace(
        base,
        model=chz.replace(base.model, speech=("video_text", "live_text")),
        source=heard(base.source),
        evals={name: measured(e) for name, e in base.evals.items()},
    )
