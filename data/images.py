"""Encoded pictures to uint8 arrays."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from data.columns import is_bytes

MOST_PIXELS = 64_000_000
"""A file that claims more is a fault or an attack."""
NO_IMAGE = "no image"


def decode_one(data: bytes, *, height: int, width: int, channels: int = 3) -> np.ndarray:
    """[height, width, channels]; resized where the file has another size, 1 channel is grey and 4 keep alpha."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels")
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        if picture.width >= 2 * width and picture.height >= 2 * height:
            picture.draft("RGB" if channels != 1 else "L", (width, height))
        picture.load()
        whole = picture if picture.mode == mode else picture.convert(mode)
        if whole.size != (width, height):
            whole = whole.resize((width, height), Image.Resampling.BILINEAR)
        return np.frombuffer(whole.tobytes(), np.uint8).reshape(height, width, channels)


def picture_bytes(values: pa.Array) -> pa.Array | None:
    """A column of encoded pictures, also where each is {bytes, path} or all are null; None if it holds others."""
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        values = pc.struct_field(values, "bytes")
    if pa.types.is_null(values.type) or not len(values):
        return pa.nulls(len(values), pa.binary())
    return values if is_bytes(values.type) else None


def decode(
    values: pa.Array, *, height: int, width: int, channels: int = 3, skip: np.ndarray | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """All pictures of a binary column, and the reason by row where one could not be decoded (its pixels are 0)."""
    array = np.zeros((len(values), height, width, channels), np.uint8)
    faults: dict[int, str] = {}
    for row, value in enumerate(values):
        if skip is not None and skip[row]:
            continue
        data = value.as_py()
        if not data:
            faults[row] = NO_IMAGE
            continue
        try:
            array[row] = decode_one(data, height=height, width=width, channels=channels)
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ):
            faults[row] = "image does not decode"
    return array, faults
