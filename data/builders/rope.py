"""ROPE (COPE): product pages, short videos and live clips that show the same product."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder
from data.building.interactions import numbered
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Text

DOMAINS = {
    "page": ("product_pages_pair", "page_titles", "page_images"),
    "video": ("product_videos_pair", "video_asrs", "video_frames"),
    "live": ("product_lives_pair", "live_asrs", "live_clips"),
}
SPLITS = {"train": "training", "test": "test"}
EMPTY = "空"
"""Stands for no text in the release."""
CHUNK = 1 << 14


class Rope(Builder):
    """One row per page, video or live clip: its product, its text (title or speech) and the names of its pictures.

    The release comes as nine text files a split after a signed licence. Assumed, since their columns are undocumented:
    `instance, product` in the pair files, `instance, text` in the text files, `page, picture` for pages and
    `instance, frame number or time, picture` for the others; a tab separates where the line has one, else a comma.
    Pictures are names (the owner serves them); frames are in the order of their number. The published split: products
    of one part are in no other.
    """

    home = "https://github.com/adxcreative/COPE (sign the licence; the owner mails nine files of each part)"
    citation = (
        "Bai, Li, Cheng, Yang, Chen, Li: Cross-Domain Product Representation Learning for Rich-Content E-Commerce, "
        "ICCV 2023."
    )
    licence = "Licensing Agreement of the ROPE dataset: signed, research only, no redistribution."
    columns = pa.schema(
        [
            ("instance", pa.string()),
            ("product", pa.int64()),
            ("domain", pa.string()),
            ("text", pa.string()),
            ("pictures", pa.list_(pa.string())),
        ]
    )
    keys = Keys(item="product")

    def parts(self, manual: Manual):
        for part in SPLITS.values():
            for files in DOMAINS.values():
                for file in files:
                    manual.find(f"{part}_{file}.txt")
        pairs = {
            split: {domain: self._table(manual, f"{part}_{files[0]}.txt", 2) for domain, files in DOMAINS.items()}
            for split, part in SPLITS.items()
        }
        names = {s: {product for domain in of.values() for _, product in domain} for s, of in pairs.items()}
        both = names["train"] & names["test"]
        manual.notes.append(f"{'LEAK ' if both else ''}products in train and in test: {len(both)}")
        known = sorted(names["train"] | names["test"])
        number = dict(zip(known, numbered(pa.chunked_array([known]))[0].tolist(), strict=True))
        return {split: self._rows(manual, part, pairs[split], number) for split, part in SPLITS.items()}

    def _rows(self, manual: Manual, part: str, pairs: dict, number: dict[str, int]) -> Iterator[pa.Table]:
        for domain, (_, texts, pictures) in DOMAINS.items():
            told = {row[0]: row[1] for row in self._table(manual, f"{part}_{texts}.txt", 2)}
            shown: dict[str, list[tuple[float, str]]] = {}
            for row in self._table(manual, f"{part}_{pictures}.txt", 2 if domain == "page" else 3):
                shown.setdefault(row[0], []).append((float(row[1]) if len(row) == 3 else 0.0, row[-1]))
            for at in range(0, len(pairs[domain]), CHUNK):
                chosen = pairs[domain][at : at + CHUNK]
                said = [told.get(instance, "").strip() for instance, _ in chosen]
                yield pa.table(
                    {
                        "instance": [instance for instance, _ in chosen],
                        "product": np.array([number[product] for _, product in chosen], np.int64),
                        "domain": [domain] * len(chosen),
                        "text": ["" if text == EMPTY else text for text in said],
                        "pictures": pa.array(
                            [[name for _, name in sorted(shown.get(instance, []))] for instance, _ in chosen],
                            pa.list_(pa.string()),
                        ),
                    }
                )

    def _table(self, manual: Manual, file: str, width: int) -> list[tuple[str, ...]]:
        """Lines of `width` fields; the last may hold the separator."""
        path = manual.find(file)
        rows: list[tuple[str, ...]] = []
        number = -1
        for number, line in manual.lines(file):
            fields = tuple(field.strip() for field in line.split("\t" if "\t" in line else ",", width - 1))
            if len(fields) != width or not fields[0] or not fields[1]:
                why = f"{len(fields)} fields, expected {width}" if len(fields) != width else "empty field"
                manual.set_aside(path, [number], field="line", why=why, values=[line[:80]])
            elif width == 3 and not fields[1].replace(".", "", 1).isdecimal():
                manual.set_aside(path, [number], field="line", why="no frame number", values=[line[:80]])
            else:
                rows.append(fields)
        manual.count(path, number + 1)
        return rows

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        return Features(
            all=(
                Text(name="text", tokens=rows["text.json"], length=64, tokenizer="text.json", role="item"),
                Categorical(name="domain", rows=rows["domain"], encode="vocabulary", role="item"),
                Label(name="product", type="class"),
            )
        )
