"""Data sets of content: films, places, pictures, texts."""

from tests.data.builders.case import Case

CASES: tuple[Case, ...] = ()
