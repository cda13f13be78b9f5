"""Recognised speech cut down to what it says about the product, before it is trained on.

A cleaner maps texts to texts; "" means that nothing was said about any product. The default keeps the words that the
catalogue knows. `Prompted` asks a language model instead, whose class is the hook for a local one.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import chz
import numpy as np

from data.errors import UserError

log = logging.getLogger(__name__)

PROMPT = """Below is what a speech recogniser heard in a video or a live stream. If it is about a product, answer with \
JSON {"type": "...", "brand": "...", "model": "...", "attributes": ["...", ...]}, with words of the speech alone and \
"" for what is not said. If it is about none, answer {"none": true}.

"""
SAID = ("brand", "model", "type")


@chz.chz
class SpeechCleaner:
    def clean(self, texts: Sequence[str], *, catalogue: Collection[str]) -> list[str]:
        """One text for each; `catalogue` are the words that products are described by."""
        raise NotImplementedError(f"{type(self).__name__} does not define clean")


@chz.chz
class KeepCatalogue(SpeechCleaner):
    """The words of the catalogue, in their order."""

    error: float = chz.field(default=0.0, doc="share of words judged wrongly, at random: what a weak model would do")
    seed: int = 0

    @chz.validate
    def _is_a_share(self) -> None:
        if not 0 <= self.error <= 1:
            raise ValueError(f"error is {self.error}; give a share between 0 and 1")

    def clean(self, texts: Sequence[str], *, catalogue: Collection[str]) -> list[str]:
        known = frozenset(catalogue)
        return [self._kept(text, known) for text in texts]

    def _kept(self, text: str, known: frozenset[str]) -> str:
        words = text.split()
        keep = np.array([word in known for word in words], bool)
        if self.error and words:
            # By the text alone, so that cleaning again gives the same.
            digest = hashlib.blake2b(f"{self.seed}/{text}".encode(), digest_size=8).digest()
            keep ^= np.random.default_rng(int.from_bytes(digest, "little")).random(len(words)) < self.error
        return " ".join(word for word, kept in zip(words, keep, strict=True) if kept)


@chz.chz
class LanguageModel:
    """The hook: a subclass of one's own in data/ answers a prompt with text, by a model of this machine."""

    def answer(self, prompt: str) -> str:
        raise NotImplementedError(f"{type(self).__name__} does not define answer")


@chz.chz
class Prompted(SpeechCleaner):
    """What a language model finds. Answers are kept on disk under a digest of model, prompt and text.

    An answer that is not the JSON asked for counts as "nothing said", is told in the log and is not kept, so that
    the next run asks again.
    """

    model: LanguageModel
    folder: str = chz.field(doc="where answers are kept")
    prompt: str = PROMPT

    def clean(self, texts: Sequence[str], *, catalogue: Collection[str]) -> list[str]:
        answers: dict[str, dict | None] = {}
        for text in texts:
            if text not in answers:
                answers[text] = self._answer(text) if text.strip() else {"none": True}
        odd = [text for text, answer in answers.items() if answer is None]
        if odd:
            log.warning("%d of %d answers were not the JSON asked for, as to %r", len(odd), len(answers), odd[0][:80])
        return [_words(answers[text] or {}) for text in texts]

    def _answer(self, text: str) -> dict | None:
        name = hashlib.sha256(json.dumps([repr(self.model), self.prompt, text]).encode()).hexdigest()
        path = Path(self.folder) / name[:2] / f"{name}.json"
        if path.is_file():
            return _parsed(path.read_text(), where=path)
        answer = _found(self.model.answer(self.prompt + text))
        if answer is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(answer, ensure_ascii=False))
            part.replace(path)
        return answer


def _parsed(text: str, *, where: Path) -> dict:
    answer = _found(text)
    if answer is None:
        raise UserError(f"{where} is no stored answer: remove it, and the model will be asked again")
    return answer


def _found(text: str) -> dict | None:
    """The JSON object in an answer, if it has the fields asked for."""
    start, end = text.find("{"), text.rfind("}")
    try:
        answer = json.loads(text[start : end + 1]) if start >= 0 else None
    except ValueError:
        return None
    if not isinstance(answer, dict) or not ({"none", "attributes"} | set(SAID)) & answer.keys():
        return None
    attributes = answer.get("attributes", [])
    good = isinstance(attributes, list) and all(isinstance(v, str) for v in attributes)
    return answer if good and all(isinstance(answer.get(name, ""), str) for name in SAID) else None


def _words(answer: dict) -> str:
    if answer.get("none"):
        return ""
    parts: Iterable[str] = (*(answer.get(name, "") for name in SAID), *answer.get("attributes", []))
    return " ".join(part.strip() for part in parts if part.strip())
