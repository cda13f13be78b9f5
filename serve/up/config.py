"""What a server opens and what it allows; each limit is a flag of `python -m serve up`."""

from pathlib import Path

import chz


@chz.chz
class Limits:
    body_mib: float = chz.field(default=8.0, doc="largest body of a request, in MiB (413)")
    rows: int = chz.field(default=4096, doc="most rows, candidates or vectors in one request (413)")
    k: int = chz.field(default=1000, doc="most neighbours that a search returns (400)")
    waiting: int = chz.field(default=128, doc="requests that wait for the device; further ones get 429")
    request_seconds: float = chz.field(default=5.0, doc="from the whole body to the answer (504)")
    body_seconds: float = chz.field(default=10.0, doc="for a client to send its body (408)")
    head_seconds: float = chz.field(default=10.0, doc="for a client to send its head, and to read its answer (closed)")
    idle_seconds: float = chz.field(default=30.0, doc="between two requests of a connection (closed)")
    connections: int = chz.field(default=4096, doc="open at once; further ones are closed")

    @chz.validate
    def _positive(self):
        for name in self.__chz_fields__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be above 0")

    @property
    def body_bytes(self) -> int:
        return int(self.body_mib * (1 << 20))


@chz.chz
class Up:
    path: Path = chz.field(doc="an artefact or a folder of versions, a workdir, a funnel's folder or an index")
    index: Path | None = chz.field(default=None, doc="index that /v1/retrieve searches")
    queries: Path | None = chz.field(default=None, doc="artefact of export --vectors query: searches for a raw user")
    read_only: bool = chz.field(default=False, doc="take no updates of a live index; other processes may")
    name: str | None = chz.field(default=None, doc="of the model in /v2; default: its class, in small letters")
    max_batch: int = chz.field(default=1024, doc="most rows in one call of the device")
    threads: int = chz.field(default=2, doc="calls of the device at once")
    cores: int = chz.field(default=0, doc="processor cores of one call; 0: those of the machine, shared by the threads")
    window_seconds: float = chz.field(default=0.001, doc="wait for more rows, where others already wait")
    watch_seconds: float = chz.field(default=2.0, doc="how often to look for a newer version; 0: never")
    drain_seconds: float = chz.field(default=1.0, doc="not ready but serving, after SIGTERM")
    finish_seconds: float = chz.field(default=30.0, doc="for running requests to finish after that")
    token: str | None = chz.field(default=None, doc="of Authorization: Bearer; None: no one is asked for it")
    limits: Limits = chz.field(default_factory=Limits)
