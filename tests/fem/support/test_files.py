"""Files are whole or not there: readers of the old one keep it, and what fails leaves it as it was."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fem.support.files import put


def test_files_are_moved_into_place(tmp_path):
    path = tmp_path / "file.txt"
    put(path, lambda temporary: temporary.write_text("old"))
    with path.open() as reader:
        put(path, lambda temporary: temporary.write_text("new"))
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    def half(temporary):
        temporary.write_text("half")
        raise RuntimeError("a bug")

    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="a bug"):
        put(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_one_file_leave_one_of_theirs(tmp_path):
    path = tmp_path / "file.txt"
    texts = [str(i) * 10_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: put(path, lambda temporary: temporary.write_text(text)), texts * 10))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
