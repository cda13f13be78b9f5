"""What a task learns from all training rows at once before each pass over them, such as clusters of users."""

import time
from collections.abc import Callable

import jax
import numpy as np

from data.errors import UserError
from data.pipeline import VALID, Loader
from data.sources import Source
from train.program import Program, State, make_predict


class BeforePass:
    """Gives the task its predictions of every training row, and the state the running statistics that it makes of them.

    Every process reads all rows, and finds the same.
    """

    def __init__(self, program: Program, *, loader: Loader, source: Source, say: Callable[[str], None]):
        self.program, self.loader, self.source, self.say = program, loader, source, say
        self.task = task = program.experiment.task
        self.reads = task.reads_before_pass

        def predict(weights, batch):
            found = program.predict(weights, batch)
            return {name: found[name] for name in task.reads_before_pass}

        self._run = jax.jit(predict)  # the other predictions, such as scores of a catalogue, are not computed

    def due(self, step: int) -> bool:
        """Whether a pass has ended since the step before, or none has begun."""
        size, rows = self.loader.batch_size, len(self.source)
        return bool(self.reads) and (step == 0 or step * size // rows > (step - 1) * size // rows)

    def __call__(self, state: State, *, step: int) -> State:
        begun = time.perf_counter()
        predict = make_predict(self.program, self.program.weights(state), run=self._run)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.reads}
        for batch in self.loader.once(self.source):
            valid = batch.pop(VALID)
            for name, values in predict(batch).items():
                parts[name].append(values[valid])
        rows = {name: np.concatenate(values) for name, values in parts.items()}
        stats, places = dict(state["stats"]), self.program.state_sharding["stats"]
        made = self.task.before_pass(rows, stats=jax.device_get(stats), step=step)
        if unknown := sorted(made.keys() - stats.keys()):
            raise UserError(f"the task makes {', '.join(unknown)} of all rows, which the model does not keep")
        stats |= {
            path: jax.device_put(np.asarray(value, stats[path].dtype), places[path]) for path, value in made.items()
        }
        seconds = time.perf_counter() - begun
        self.say(f"step {step}: {', '.join(sorted(made))} from {len(self.source):,} rows, {seconds:.1f} s")
        return {**state, "stats": stats}
