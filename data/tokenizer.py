"""Tokenizers: one of one's own titles, byte-level BPE where token 0 is padding; or the one that came with weights."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from data.arrow_file import batches
from data.columns import column, is_text
from data.errors import UserError
from data.parquet import check_schemas, expand, opened

LONGEST = 1000
"""Characters of a text that are learned from."""


def load(path: str | os.PathLike) -> Tokenizer:
    """A `tokenizer.json`, or the `vocab.txt` of BERT's family; neither pads nor cuts."""
    path = Path(path)
    with path.open("rb") as file:
        whole = file.read(1) == b"{"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if whole else word_pieces(path)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is no tokenizer ({error}); give a tokenizer.json or a vocab.txt") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def word_pieces(path: Path) -> Tokenizer:
    """BERT's tokenizer from its vocabulary, a word piece a line; lower case unless the file beside it says not."""
    words = path.read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(words)}
    if absent := [word for word in ("[UNK]", "[CLS]", "[SEP]") if word not in vocabulary]:
        raise ValueError(f"{', '.join(absent)} not among its {len(words)} lines")
    config = path.with_name("tokenizer_config.json")
    lower = json.loads(config.read_text()).get("do_lower_case", True) if config.is_file() else True
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(word, vocabulary[word]) for word in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer


def cut(encoding: Encoding, *, length: int) -> list[int]:
    """The ids; where they are more than `length` and end in special tokens, the first and those."""
    ids = encoding.ids
    if len(ids) <= length:
        return ids
    ending = 0
    while ending < length and encoding.special_tokens_mask[-1 - ending]:
        ending += 1
    return ids[: length - ending] + ids[len(ids) - ending :] if ending else ids


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
