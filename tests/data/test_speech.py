"""Cleaned speech: the catalogue's words, and what a language model answers, kept on disk."""

import logging
from pathlib import Path

import chz
import pytest

from data.errors import UserError
from data.speech import KeepCatalogue, LanguageModel, Prompted

WORDS = ("red", "wool", "Tabo")
TEXTS = ["so hello red friends wool wool", "hello there", "", "Tabo red"]


def test_keeps_the_words_of_the_catalogue():
    assert KeepCatalogue().clean(TEXTS, catalogue=WORDS) == ["red wool wool", "", "", "Tabo red"]


def test_errors_are_as_many_as_asked_and_the_same_each_time():
    text = " ".join(["red", "hello"] * 500)
    cleaner = KeepCatalogue(error=0.1)
    (once,), (again,) = (cleaner.clean([text], catalogue=WORDS) for _ in range(2))
    assert once == again
    assert once.split().count("red") == pytest.approx(450, abs=30)
    assert once.split().count("hello") == pytest.approx(50, abs=20)
    with pytest.raises(ValueError, match="between 0 and 1"):
        KeepCatalogue(error=2)


@chz.chz
class Parrot(LanguageModel):
    """Writes down what it is asked, and answers by a rule."""

    diary: str

    def answer(self, prompt):
        with Path(self.diary).open("a") as file:
            file.write(f"{prompt[-12:]!r}\n")
        if "Tabo" in prompt:
            return 'Sure: {"brand": "Tabo", "type": "", "attributes": ["red"]}'
        return '{"none": true}' if "there" in prompt else "I cannot say."


def test_a_model_is_asked_once_for_each_text(tmp_path, caplog):
    cleaner = Prompted(model=Parrot(diary=str(tmp_path / "diary")), folder=str(tmp_path / "answers"))
    with caplog.at_level(logging.WARNING):
        assert cleaner.clean([*TEXTS, TEXTS[1]], catalogue=()) == ["", "", "", "Tabo red", ""]
    assert "1 of 4 answers were not the JSON asked for" in caplog.text
    asked = (tmp_path / "diary").read_text().splitlines()
    assert len(asked) == 3  # never for an empty text
    cleaner.clean(TEXTS, catalogue=())
    assert len((tmp_path / "diary").read_text().splitlines()) == 4  # the odd answer alone is asked for again
    other = chz.replace(cleaner, prompt="Else: ")
    other.clean(TEXTS[:2], catalogue=())
    assert len((tmp_path / "diary").read_text().splitlines()) == 6


@pytest.mark.parametrize("answer", ['{"attributes": "red"}', '{"brand": 3}', "[1]", '{"colour": "red"}', "{broken"])
def test_other_answers_are_no_json_asked_for(tmp_path, answer):
    @chz.chz
    class Odd(LanguageModel):
        def answer(self, prompt):
            return answer

    folder = tmp_path / "answers"
    assert Prompted(model=Odd(), folder=str(folder)).clean(["Tabo"], catalogue=()) == [""]
    assert not folder.exists()


def test_a_spoilt_answer_on_disk_is_named(tmp_path):
    cleaner = Prompted(model=Parrot(diary=str(tmp_path / "diary")), folder=str(tmp_path / "answers"))
    cleaner.clean(["Tabo red"], catalogue=())
    (kept,) = (tmp_path / "answers").rglob("*.json")
    kept.write_text("{")
    with pytest.raises(UserError, match="is no stored answer: remove it"):
        cleaner.clean(["Tabo red"], catalogue=())
