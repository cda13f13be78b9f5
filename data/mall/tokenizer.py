"""The mall's words as a tokenizer, for texts that people type; the mall itself writes tokens."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data.mall.config import Mall
from data.mall.views.words import lexicon


def word_tokenizer(mall: Mall) -> Tokenizer:
    """Words to the tokens of titles and queries, in any case. One string that is the form of several words, as brands
    are in both languages, becomes the first of them; others become the unknown token."""
    strings = lexicon(mall).strings
    first: dict[str, int] = {}
    for token, string in enumerate(strings):
        first.setdefault(string.lower(), token)
    unknown = strings[1]
    tokenizer = Tokenizer(models.WordLevel(vocab=first, unk_token=unknown))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
