"""A tokenizer of one's own titles: byte-level BPE, where token 0 is padding."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from data.arrow_file import batches
from data.columns import column, is_text
from data.errors import UserError
from data.parquet import check_schemas, expand, opened

LONGEST = 1000
"""Characters of a text that are learned from."""


def learn(
    path: str, *, columns: tuple[str, ...], size: int, target: str | os.PathLike, most: int = 1_000_000
) -> Tokenizer:
    """Learns from the text `columns` of the Parquet files at `path`, at most `most` rows, and writes `target`."""
    files = expand(path)
    check_schemas(files, columns=list(columns))
    tokenizer = train(_texts(files, columns, most), size=size)
    save(tokenizer, target=target)
    return tokenizer


def train(texts: Iterator[list[str]], *, size: int) -> Tokenizer:
    """Learns from batches of texts; equal texts give equal tokenizers."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if size <= len(alphabet) + 1:
        raise UserError(f"a byte-level tokenizer needs more than {len(alphabet) + 1} tokens, size is {size}")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["[pad]"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, *, target: str | os.PathLike) -> None:
    """Writes the file whole or not at all."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    tokenizer.save(str(part))
    part.replace(target)


def _texts(files: list[Path], columns: tuple[str, ...], most: int) -> Iterator[list[str]]:
    left = most
    for file in files:
        with opened(file) as blocks:
            for batch in batches(blocks, columns=list(columns), size=8192):
                for name in columns:
                    values = column(batch, name, file=str(file))
                    if not is_text(values.type):
                        raise UserError(f"{file}: column {name!r} is {values.type}, a tokenizer learns from strings")
                    yield pc.utf8_slice_codeunits(values.drop_null(), 0, LONGEST).to_pylist()
                left -= batch.num_rows
                if left <= 0:
                    return
