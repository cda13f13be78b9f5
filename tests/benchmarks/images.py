"""Images per second from 60 x 80 JPEG in Parquet to augmented batches.

    python -m tests.benchmarks.images [images] [batch_size]

Prints JSON: decoding (once), augmented batches (every epoch), and the first epoch with both.
"""

import io
import json
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Picture

from data.features import Features, Image
from data.parquet import Parquet
from data.pipeline import Loader
from data.transforms.images import Augment


def jpeg(rng: np.random.Generator) -> bytes:
    small = Picture.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize((60, 80), Picture.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


def main(images: int = 20_000, batch_size: int = 256) -> dict:
    rng = np.random.default_rng(0)
    some = [jpeg(rng) for _ in range(1000)]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/images.parquet"
        pq.write_table(pa.table({"image": [some[i % 1000] for i in range(images)]}), path, row_group_size=2000)
        features = Features(all=(Image(name="image", height=80, width=60),))
        begun = time.perf_counter()
        source = Parquet(path=path, features=features).make()
        decoded = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in Loader(batch_size=batch_size, epochs=1, transforms=(Augment(),)).open(source):
        pass
    batches = time.perf_counter() - begun
    return {
        "images": images,
        "batch_size": batch_size,
        "decode_per_s": round(images / decoded),
        "augmented_batches_per_s": round(images / batches),
        "both_per_s": round(images / (decoded + batches)),
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
