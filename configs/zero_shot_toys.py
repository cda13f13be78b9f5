"""Zero-shot: Beauty's users teach how words matter, Toys' items are ranked by their words alone.

ADLOOM_DATA=... python -m train configs/zero_shot_toys.py --workdir runs/zero_shot_toys

No vector of an item is learned and nothing is known of who bought which toy but the history in the request: what is
given are cosines of Toys' own words and who is nearest by them, and only what to make of these comes from Beauty.
"here" has the model's figures as valid/ and the floors' as floor/, tfidf among them. Figures: docs/sequences.md.
"""

from configs.sequences import by_words_of, folder
from train.pipeline import Pipeline


def get_config() -> Pipeline:
    return by_words_of(folder("amazon14-beauty"), path=folder("amazon14-toys"))
