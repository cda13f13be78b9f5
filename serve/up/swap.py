"""One `Serving` for all requests, and another in its place: opened, checked and warmed before it is seen.

A request keeps the one that it began with. One that cannot be opened is refused with its reason; the old goes on.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from data.errors import UserError
from serve.up.config import Up
from serve.up.metrics import Metrics
from serve.up.places import Stamp, find
from serve.up.serving import Serving

log = logging.getLogger("adloom.up")


class Holder:
    def __init__(self, config: Up, *, metrics: Metrics):
        self._config, self._metrics = config, metrics
        self._changing = threading.Lock()
        self.updating = threading.Lock()
        """Held by whoever changes the index, so that none is changed that has just been replaced."""
        self._refused: dict[str, Stamp] = {}
        self.current = Serving(config)
        self.current.warm()
        metrics.serves(self.current.versions)

    def reload(self) -> dict[str, Any]:
        """Puts what lies at the path in place of what is served, if it is another; raises UserError if it is bad."""
        with self._changing:
            before = self.current
            try:
                stamps = self._refused = find(self._config).stamps(self._config)
                if stamps == before.stamps:
                    self._refused = {}
                    return {"swapped": False, "versions": before.versions}
                after = Serving(self._config, before=before)
                self._warm(after, before=before)
            except Exception as error:  # whatever a bad folder brings about: the old one serves on
                self._metrics.swapped(well=False)
                log.error("refused a newer version, the old one serves on: %s", error)
                if isinstance(error, UserError):
                    raise
                raise UserError(f"what lies at {self._config.path} cannot be opened: {error}") from error
            with self.updating:
                self.current, self._refused = after, {}
                before.close(but=after)
            self._metrics.serves(after.versions)
            self._metrics.swapped(well=True)
            log.warning("now serving %s", after.versions)
            return {"swapped": True, "versions": after.versions}

    @staticmethod
    def _warm(after: Serving, *, before: Serving) -> None:
        try:
            after.warm()
        except BaseException:
            after.close(but=before)
            raise

    def close(self) -> None:
        with self._changing, self.updating:
            self.current.close(but=None)

    def look(self) -> None:
        """Reloads where another version lies at the path than is served or was refused."""
        try:
            stamps = find(self._config).stamps(self._config)
        except (UserError, OSError) as error:
            log.error("cannot look for newer versions: %s", error)
            return
        if stamps in (self.current.stamps, self._refused):
            return
        try:
            self.reload()
        except UserError:
            return  # logged and counted by reload


class Every:
    """Calls `work` in a thread of its own every so many seconds until it is closed."""

    def __init__(self, work: Callable[[], None], *, seconds: float):
        self._work, self._seconds, self._stop = work, seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._work()
