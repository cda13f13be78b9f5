"""An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale (Dosovitskiy et al., ICLR 2021).

The network of `modules.encoders.vision` with the details that the published weights were trained with.
"""

from typing import Literal

import chz

from modules.encoders.vision import Details, ViT


@chz.chz
class ViTBase(ViT):
    """ViT-B/16."""

    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    pool: Literal["mean", "map", "cls"] = "cls"

    details = Details(activation="exact", epsilon=1e-12)
