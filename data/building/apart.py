"""Splits read by the workers of a cluster, each into a file of tables from which the build then takes them.

What takes long is to parse the files of a release. What follows (blocks, hashes, vocabularies, leaks) is the code of
a build in one process, in the order of the splits, so that the data set is the same. The files stay until the data set
is whole: a build that was killed reads again only what was not read.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data.building.blocks import as_declared
from data.building.read import Manual
from data.cluster import Cluster
from data.errors import UserError
from data.part_files import PartFiles, stamp
from data.rejects import Rejects

if TYPE_CHECKING:
    from data.builders.base import Builder

Make = Callable[[], "Builder"]
Open = Callable[[], "tuple[Builder, Manual]"]


class Apart:
    """`open` makes the builder and its reader of files anew in each worker, and must pickle."""

    def __init__(self, cluster: Cluster, *, open: Open, files: PartFiles):
        self._cluster, self._open, self._files = cluster, open, files

    def read(self, builder: "Builder", splits: Iterator[str], manual: Manual) -> dict[str, Iterator[pa.Table]]:
        """The tables of each split, and of its reader what is to be told, as it is come to."""
        names = list(splits)
        if builder.together:
            raise UserError(f"the splits of {builder.name} are read together, by one process; leave --engine out")
        todo = [split for split in names if f"{split}.json" not in self._files]
        with closing(self._cluster.map(partial(_worker, self._open, self._files), pieces=todo)) as done:
            for _ in done:
                pass
        return {split: self._tables(builder, split, manual) for split in names}

    def _tables(self, builder: "Builder", split: str, manual: Manual) -> Iterator[pa.Table]:
        with pa.ipc.open_file(self._files.path(f"{split}.arrow")) as file:
            for number in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(number)])
        told = json.loads(self._files.path(f"{split}.json").read_text())
        rejects = Rejects()
        if told["rejected"]:
            rejects = Rejects.read(self._files.path(f"{split}.jsonl"), count=told["rejected"])
        manual.take_over(told["account"], rejects=rejects)
        builder.sizes |= told["sizes"]


@contextlib.contextmanager
def reading(builder: "Builder", *, make: Make, cluster: Cluster | None, manual: Path) -> Iterator[None]:
    """Within, the splits are read by the workers of the cluster, if there is one."""
    if cluster is None:
        yield
        return
    manual, to = manual.resolve(), Path(builder.data_path)
    read = {str(path.relative_to(manual)): stamp(path) for path in sorted(manual.rglob("*")) if path.is_file()}
    files = PartFiles(to.parent / f".{to.name}.parts", made_from={"name": builder.name, "data": to.name, "files": read})
    builder.apart = Apart(cluster, open=partial(_opened, make, manual), files=files)
    try:
        yield
    except BaseException:
        files.close()
        raise
    files.remove()


def _opened(make: Make, manual: Path) -> "tuple[Builder, Manual]":
    builder = make()
    return builder, builder.reader(manual)


def _worker(open: Open, files: PartFiles) -> Callable[[str], None]:
    def work(split: str) -> None:
        builder, manual = open()
        with contextlib.ExitStack() as builder.held:
            tables = builder.parts(manual)[split]
            schema = builder.stored()
            with files.writing(f"{split}.arrow") as part, pa.ipc.new_file(part, schema) as writer:
                for table in tables:
                    writer.write_table(as_declared(table, schema))
        if manual.rejects.count:
            with files.writing(f"{split}.jsonl") as part:
                manual.rejects.write(part)
        told = {"account": manual.account(), "rejected": manual.rejects.count, "sizes": builder.sizes}
        with files.writing(f"{split}.json") as part:  # last: the split is done
            part.write_text(json.dumps(told))

    return work
