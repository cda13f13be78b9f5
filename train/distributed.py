"""Several processes, one run: `jax.distributed` on request, and agreement between the processes."""

import signal
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(coordinator: str, *, process: int, processes: int) -> None:
    # The service would swallow SIGTERM, which the loop answers by saving.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


def barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a request that all processes answer at the same step."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, *, agree_every: int):
        self.asked = False
        self._every = agree_every
        self._old: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.SIGNALS:
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice
        self.asked = True

    def agreed(self, step: int) -> bool:
        """True at one same step in every process, once any of them was asked to stop."""
        if jax.process_count() == 1:
            return self.asked
        if step % self._every:
            return False
        return bool(np.any(multihost_utils.process_allgather(np.asarray(self.asked))))
