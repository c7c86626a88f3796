"""Cells that a file lists once for each of their groups are one, in all these groups; others stay to be refused."""

from types import SimpleNamespace

import numpy as np

from fem.files.labelling.repetition import once, representatives


def test_copies_in_other_groups_are_one():
    rows = np.array([[0, 1, 2], [3, 4, 5], [2, 0, 1], [1, 2, 0]])
    groups = [np.array([0, 1]), np.array([2]), np.array([3])]
    assert representatives(rows, groups).tolist() == [0, 1, 0, 0]
    assert representatives(rows, [np.array([0, 1, 2]), np.array([3])]).tolist() == [0, 1, 2, 0]  # twice in one group
    assert representatives(rows, groups[:2]).tolist() == [0, 1, 0, 0]  # in none, once
    assert representatives(rows, groups[:1]).tolist() == [0, 1, 0, 3]  # in none, twice
    assert representatives(rows[:0], []).tolist() == []


def test_sets_and_data_follow():
    blocks = [
        ("triangle", np.array([[0, 1, 2], [1, 2, 3]])),
        ("line", np.array([[0, 1]])),
        ("triangle", np.array([[2, 1, 0], [4, 5, 6]])),
    ]
    none = np.array([], dtype=np.int64)
    sets = {"a": [np.array([0, 1]), none, none], "b": [none, np.array([0]), np.array([0, 1])]}
    data = {"n": [np.array([10, 11]), np.array([12]), np.array([13, 14])]}
    contents = SimpleNamespace(cell_sets=sets, cell_data=data)
    new = once(contents, blocks)
    assert [rows.tolist() for _, rows in new] == [[[0, 1, 2], [1, 2, 3]], [[0, 1]], [[4, 5, 6]]]
    assert [chosen.tolist() for chosen in contents.cell_sets["a"]] == [[0, 1], [], []]
    assert [chosen.tolist() for chosen in contents.cell_sets["b"]] == [[0], [0], [0]]
    assert [values.tolist() for values in contents.cell_data["n"]] == [[10, 11], [12], [14]]
