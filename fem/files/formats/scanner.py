"""Numbers out of the bytes of a file, as text or binary: never more than there are, and errors say where."""

import re

import numpy as np

from fem.errors import MeshError


class Scanner:
    """A place in the bytes of a file that moves forward.

    Numbers are given by the letters of their kinds: i and N integers, d floating point; in binary files i has four
    bytes, N `size` bytes and d eight.

    Args:
        binary: whether numbers are binary; headings are lines of text all the same.
        order: "<" or ">", the order of the bytes.
    """

    def __init__(self, data: bytes, binary: bool = False, order: str = "<", size: int = 8):
        self.data, self.at, self.first_row = data, 0, 1
        self.binary, self.order, self.size = binary, order, size

    @property
    def place(self) -> str:
        """Where reading stands, for messages."""
        if self.binary:
            return f"byte {self.at}"
        number = self.data.count(b"\n", 0, self.at) + 1
        return f"line {number}"

    def line(self, what: str) -> str:
        """The next line that is not blank.

        Raises:
            MeshError: the file ends before it.
        """
        while self.at < len(self.data):
            end = self.data.find(b"\n", self.at)
            end = len(self.data) if end < 0 else end
            text = self.data[self.at : end].decode("utf-8", "replace").strip()
            self.at = end + 1
            if text:
                return text
        raise MeshError(f"the file ends where {what} should follow; it is cut off.")

    def count(self, what: str) -> int:
        """A line that is one number, zero or more."""
        text = self.line(what)
        if not re.fullmatch(r"\d{1,18}", text):
            raise self.wrong(what, text)
        return int(text)

    def integers(self, what: str, words: list[str] | None = None) -> list[int]:
        """The numbers of the next line, or those in words of the line just read."""
        words = self.line(what).split() if words is None else words
        try:
            return whole_numbers(words)
        except ValueError:
            raise self.wrong(what, " ".join(words)) from None

    def rows_of_words(self, count: int, what: str) -> list[list[str]]:
        """So many lines that are not blank."""
        self.enough(2 * count - 1, count, what)
        self.first_row = self.data.count(b"\n", 0, self.at) + 1
        lines = self.data[self.at :].split(b"\n", count)[:count] if count else []
        rows = [line.decode("utf-8", "replace").split() for line in lines]
        if len(rows) < count or not all(rows):  # blank lines, or fewer
            return [self.line(what).split() for _ in range(count)]
        self.at += sum(map(len, lines)) + count
        return rows

    def wrong_row(self, index: int, what: str, words: list[str]) -> MeshError:
        """The error for one of the rows that `rows_of_words` gave."""
        return MeshError(f"line {self.first_row + index}: expected {what}; found {' '.join(words)[:60]!r}.")

    def nothing_more(self) -> None:
        """Raise where rows follow after as many as were announced."""
        if re.compile(rb"\s*\S").match(self.data, self.at):
            raise self.wrong("the end of the file, after as many rows as were announced", self.line("the end"))

    def wrong(self, what: str, found: str) -> MeshError:
        """The error for the line just read."""
        self.at -= 1
        return MeshError(f"{self.place}: expected {what}; found {found[:60]!r}.")

    def record(self, kinds: str, what: str) -> list:
        """A few numbers, in text wherever the lines break."""
        if self.binary:
            return [self.array(kind, 1, what)[0].item() for kind in kinds]
        values = []
        for kind in kinds:
            word = self.word(what)
            try:
                values.append(float(word) if kind == "d" else int(word))
            except ValueError:
                self.at += 1
                raise self.wrong(what, word) from None
        return values

    def word(self, what: str) -> str:
        """The next text up to a blank or the end of a line.

        Raises:
            MeshError: the file ends before it.
        """
        found = re.compile(rb"\s*(\S+)").match(self.data, self.at)
        if found is None:
            raise MeshError(f"the file ends where {what} should follow; it is cut off.")
        self.at = found.end()
        return found[1].decode("utf-8", "replace")

    def array(self, kind: str, count: int, what: str) -> np.ndarray:
        """So many numbers of one kind, in text wherever the lines break."""
        if not self.binary:
            self.enough(2 * count - 1, count, what)
            return np.array(self.record(kind * count, what))
        dtype = self.dtype(kind)
        self.enough(count * dtype.itemsize, count, what)
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += count * dtype.itemsize
        return values

    def counted(self, kind: str, what: str) -> np.ndarray:
        """How many numbers follow, and these numbers."""
        (count,) = self.record("N", f"the number of {what}")
        return self.array(kind, count, what)

    def table(self, kinds: str, rows: int, what: str) -> list[np.ndarray]:
        """The columns of a table; in text each row is a line.

        Raises:
            MeshError: fewer rows than that, or one that is too long, too short or not of numbers.
        """
        dtype = np.dtype([(f"f{i}", self.dtype(kind)) for i, kind in enumerate(kinds)])
        if self.binary:
            self.enough(rows * dtype.itemsize, rows, what)
            values = np.frombuffer(self.data, dtype, rows, self.at)
            self.at += rows * dtype.itemsize
            return [values[name] for name in dtype.names or ()]
        self.enough(2 * len(kinds) * rows - 1, rows, what)
        lines = self.rest_of_line(rows, what)
        try:
            # A text of one column has no structure for NumPy.
            values = np.loadtxt(lines, dtype, comments=None, ndmin=1) if rows else np.empty(0, dtype)
        except (ValueError, OverflowError, DeprecationWarning):
            values = np.empty(0, dtype)
        if len(values) != rows:
            start = self.data.count(b"\n", 0, self.at) - rows
            raise MeshError(first_wrong_row(lines, kinds, start + 1, what))
        return [values[name] for name in dtype.names or ()]

    def rest_of_line(self, rows: int, what: str) -> list[str]:
        """The next so many lines, after the rest of the line that was begun."""
        rest = re.compile(rb"[ \t\r]*\n").match(self.data, self.at)
        if rest is not None and (self.at == 0 or self.data[self.at - 1 : self.at] != b"\n"):
            self.at = rest.end()
        start, lines = self.at, []
        for _ in range(rows):
            end = self.data.find(b"\n", start)
            if end < 0 and start >= len(self.data):
                raise MeshError(f"the file ends after {len(lines)} of {rows} rows of {what}; it is cut off.")
            end = len(self.data) if end < 0 else end
            lines.append(self.data[start:end].decode("utf-8", "replace"))
            start = end + 1
        self.at = start
        return lines

    def enough(self, size: int, count: int, what: str) -> None:
        """Raise where the rest of the file is shorter than `size` bytes."""
        left = len(self.data) - self.at
        if not 0 <= size + (count == 0) <= left + 1:
            raise MeshError(f"{self.place}: {count} {what} are announced, but only {left} bytes follow.")

    def dtype(self, kind: str) -> np.dtype:
        """What a letter means."""
        if kind == "d":
            return np.dtype(f"{self.order}f8")
        return np.dtype(f"{self.order}i{4 if kind == 'i' and self.binary else self.size}")


def without_comments(data: bytes) -> Scanner:
    """A scanner of text whose comments, from # on, are blanked; lines keep their numbers."""
    return Scanner(re.sub(rb"#[^\n]*", b"", data))


def whole_numbers(words: list[str]) -> list[int]:
    """The words as numbers.

    Raises:
        ValueError: one is none, or beyond 64 bits.
    """
    numbers = list(map(int, words))
    if numbers and (max(numbers) >= 2**62 or min(numbers) <= -(2**62) or "_" in "".join(words)):
        raise ValueError
    return numbers


def first_wrong_row(lines: list[str], kinds: str, start: int, what: str) -> str:
    """What is wrong with the first row that does not hold numbers of these kinds."""
    for number, line in enumerate(lines, start):
        words = line.split()
        try:
            right = len([float(w) if k == "d" else int(w) for w, k in zip(words, kinds, strict=True)])
        except ValueError:
            right = 0
        if not right:
            return f"line {number}: expected {len(kinds)} numbers, {what}; found {line.strip()[:60]!r}."
    return f"line {start}: {what} cannot be read."


def text_of(data: bytes) -> bytes:
    """The data in UTF-8 without a mark in front, where they are text in UTF-16 or begin with such a mark."""
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    for mark, encoding, zeros in ((b"\xff\xfe", "utf-16-le", data[3:64:2]), (b"\xfe\xff", "utf-16-be", data[2:64:2])):
        if data.startswith(mark) and zeros and not zeros.strip(b"\0"):
            return data[2:].decode(encoding, "replace").encode()
    return data
