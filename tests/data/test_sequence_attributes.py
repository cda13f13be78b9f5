"""Histories of a sequence file with the categories of their items."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import FIRST
from data.sequence_attributes import SequenceAttributes

ITEMS = """item_id\ttitle\tcategories
1\tcream\tBeauty > Face > Lotions
2\tmilk\tBeauty > Body > Lotions > Light
3\tbag\tBeauty
5\toil\tBeauty > Body > Lotions
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text("7 1 2 5 3 4 1 1\n8 5 2 1 1\n")
    (tmp_path / "items.tsv").write_text(ITEMS)
    return tmp_path


def test_each_level_is_a_path_and_absent_where_an_item_has_none(folder):
    config = SequenceAttributes(path=str(folder), levels=3, max_len=5)
    source = config.make()
    columns = source.columns
    assert config.names == ("history_level_1", "history_level_2", "history_level_3")
    np.testing.assert_array_equal(columns["history"][0], [1 + 1, 2 + 1, 5 + 1, 3 + 1, 4 + 1])
    first, second, third = (columns[name] for name in config.names)
    body, face = FIRST, FIRST + 1  # by their names
    np.testing.assert_array_equal(first[0], [face, body, body, 0, 0])
    assert second[0, 0] != second[0, 1] == second[0, 2] != 0  # lotions of the face are not those of the body
    np.testing.assert_array_equal(third[0] > 0, [False, True, False, False, False])
    np.testing.assert_array_equal(first[1], [body, body, 0, 0, 0])
    for name in config.names:
        np.testing.assert_array_equal(columns[f"{name}/length"], columns["history/length"])
        assert source.features[name].size == columns[name].max() + 1


def test_without_a_table_or_levels_it_says_so(folder):
    (folder / "items.tsv").write_text("item_id\ttitle\n1\tcream\n5\toil\n")
    with pytest.raises(UserError, match="states no categories"):
        SequenceAttributes(path=str(folder)).make()
    (folder / "items.tsv").unlink()
    with pytest.raises(UserError, match=r"has no items\.tsv"):
        SequenceAttributes(path=str(folder)).make()
    with pytest.raises(ValueError, match="use SequenceFile"):
        SequenceAttributes(path=str(folder), levels=0)
