"""The sections of IGES files in fixed format: lines of 80 bytes, the directory of entities, and their parameters.

Columns are counted in bytes. Empty lines, text after the terminate line and wrong counts of lines do no harm; numbers
of lines and pointers back to the directory are held against each other where they are there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import read_integer, read_numbers

UNITS = {"inch": (1, "INCH"), "mm": (2, "MM"), "ft": (4, "FT"), "mile": (5, "MI"), "m": (6, "M"), "km": (7, "KM")}
UNITS |= {"mil": (8, "MIL"), "um": (9, "UM"), "cm": (10, "CM"), "uin": (11, "UIN")}
SPELLINGS = {name: unit for unit, (_, name) in UNITS.items()} | {"IN": "inch"}


@dataclass(frozen=True)
class Entity:
    """An entry of the directory with its parameters as text, the kind of entity first."""

    kind: int
    transformation: int
    dependent: bool
    words: list[str]
    where: str
    form: int = 0
    use: int = 0
    label: str = ""

    def numbers(self, start: int, count: int) -> np.ndarray:
        """Parameters from `start` on; those left out are 0, and exponents may be written with D."""
        if not 0 <= count <= len(self.words) - start:
            raise GeometryError(f"{self.where}: {start + count} parameters were expected; got {len(self.words)}.")
        words = [w.strip().replace("D", "E").replace("d", "e") or "0" for w in self.words[start : start + count]]
        return read_numbers(words, self.where)

    def finite(self, start: int, count: int) -> np.ndarray:
        found = self.numbers(start, count)
        if not np.isfinite(found).all():
            raise GeometryError(f"{self.where}: finite numbers were expected; got {found.tolist()}.")
        return found

    def count(self, place: int) -> int:
        """How many of something there are."""
        found = read_integer(self.numbers(place, 1), self.where)
        if not 0 <= found <= len(self.words):
            raise GeometryError(
                f"{self.where}: {found} of what is listed are announced; got {len(self.words)} parameters."
            )
        return found

    def pointers(self, start: int, count: int, step: int = 1) -> list[int]:
        """Every `step`-th parameter from `start` on, as numbers of entities; those left out are 0."""
        return [read_integer(x, self.where) for x in self.numbers(start, count * step)[::step]]


@dataclass(frozen=True)
class IgesFile:
    entities: dict[int, Entity]
    header: list[str]

    @property
    def unit(self) -> str | None:
        """By its number in the global section, or by its name where that is said to count."""
        flag = self.header[13].strip() if len(self.header) > 13 else ""
        if flag not in ("", "3"):
            return next((unit for unit, (number, _) in UNITS.items() if flag == str(number)), None)
        name = text_of(self.header[14]).strip().upper() if len(self.header) > 14 else ""
        return SPELLINGS.get(name, None if name or flag else "inch")

    @property
    def scale(self) -> float:
        """Model space over real space."""
        word = self.header[12].strip() if len(self.header) > 12 else ""
        return float(read_numbers(word.replace("D", "E") or "1", "global section"))

    @property
    def uncertainty(self) -> float:
        """The smallest distance that means something."""
        word = self.header[18].strip() if len(self.header) > 18 else ""
        return abs(float(read_numbers(word.replace("D", "E") or "0", "global section")))


def read_file(path: Path) -> IgesFile:
    return parsed(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1"))


def directory(text: str) -> dict[int, Entity]:
    """The entities by the number of their first line in the directory."""
    return parsed(text).entities


def parsed(text: str) -> IgesFile:
    """A file from its text, one sign for each byte."""
    sections: dict[str, list[tuple[int, str]]] = {letter: [] for letter in "SGDPT"}
    for number, line in lines_of(text):
        sections[line[72]].append((number, line))
        if line[72] == "T":
            break
    else:
        raise GeometryError("it breaks off before the terminate section.")
    head = "".join(line[:72] for _, line in sections["G"])
    between, after = delimiters(head)
    entries, parameters = sections["D"], sections["P"]
    if len(entries) % 2:
        raise GeometryError(f"line {entries[-1][0]}: entries of the directory have two lines.")
    for letter in "DP":
        check_order(sections[letter])
    found = {}
    for i in range(0, len(entries), 2):
        where = f"line {entries[i][0]}"
        (one, line), (two, other) = entries[i : i + 2]
        first, second = read_fields(line, one, (0, 1, 6, 8)), read_fields(other, two, (0, 3, 4))
        kind, start, count = first[0], first[1], second[3]
        if second[0] not in (0, kind):
            raise GeometryError(f"{where}: an entity is said to be of kind {kind} and of kind {second[0]}.")
        if kind == 0:  # deleted
            continue
        where = f"{where}, entity {kind}"
        words = read_words(parameters, start, count, i + 1, (between, after), where)
        if words[0].strip() != str(kind):
            raise GeometryError(f"{where}: its parameters are those of entity {words[0].strip()!r}.")
        status, label = f"{abs(first[8]):08}", other[56:64].strip()
        dependent = status[-6:-4] in ("01", "03")
        found[i + 1] = Entity(kind, first[6], dependent, words, where, second[4], int(status[-4:-2]), label)
    for number, line in parameters:
        if (word := line[64:72].strip()).isdecimal() and int(word) > len(entries):
            raise GeometryError(f"line {number}: parameters belong to the entry D{word}, which is not there.")
    return IgesFile(found, cut(head, between, after)[0])


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their number, and a section's letter in column 73."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip():
            continue
        if line[72:73] not in "SGDPT" or len(line) < 73:
            counted = line.encode("latin-1").decode("utf-8", errors="replace")  # by signs, as some programs do
            if len(counted) < 73 or counted[72] not in "SGDPT":
                compressed = "; compressed and binary IGES are not read" if line[72:73] in ("C", "B") else ""
                raise GeometryError(f"line {number}: a line of IGES has one of S, G, D, P, T in column 73{compressed}.")
            line = counted
        yield number, line


def check_order(lines: list[tuple[int, str]]) -> None:
    """Lines of a section that are numbered are so without gaps: one that is lost would move all pointers."""
    if not lines or lines[0][1][73:80].strip() not in ("1", "0000001"):
        return
    for i, (number, line) in enumerate(lines, 1):
        word = line[73:80].strip()
        if word and word.lstrip("0") != str(i):
            raise GeometryError(f"line {number}: line {i} of section {line[72]} is numbered {word}; lines are missing.")


def read_words(
    lines: list[tuple[int, str]], start: int, count: int, own: int, marks: tuple[str, str], where: str
) -> list[str]:
    """The parameters of one entity, up to the mark after the last one."""
    last = start + max(count, 1) - 1
    if not 1 <= start <= len(lines):
        raise GeometryError(f"{where.split(',')[0]}: its parameters, lines P{start} to P{last}, are not there.")
    pointer = lines[start - 1][1][64:72].strip()
    if pointer.isdecimal() and int(pointer) != own:
        raise GeometryError(f"{where}: its parameters, line P{start}, belong to the entry D{pointer}.")
    while last < len(lines) and lines[last][1][64:72].strip() == str(own):  # more lines than announced
        last += 1
    words, ended = cut("".join(line[:64] for _, line in lines[start - 1 : last]), *marks)
    if not ended and last > len(lines):
        raise GeometryError(f"{where.split(',')[0]}: its parameters, lines P{start} to P{last}, are not there.")
    if not ended:
        raise GeometryError(f"{where}: its parameters do not end with {marks[1]!r}.")
    return words


def cut(text: str, between: str, after: str) -> tuple[list[str], bool]:
    """Words up to the mark after the last one, and whether that is there; strings (3Ha;b) may hold both marks."""
    if "H" not in text:
        body, mark, _ = text.partition(after)
        return body.split(between), bool(mark)
    words, place, pattern = [], 0, re.compile(rf"\s*(\d{{1,7}})H|[^{re.escape(between + after)}]*")
    while True:
        found = pattern.match(text, place)
        assert found is not None
        end = found.end()
        if found[1]:
            marks = [k for k in (text.find(mark, end + int(found[1])) for mark in (between, after)) if k >= 0]
            end = min(marks, default=len(text))
        words.append(text[place:end])
        if end >= len(text) or text[end] == after:
            return words, end < len(text)
        place = end + 1


def text_of(word: str) -> str:
    """The text of a string, 4Htext."""
    count, _, text = word.strip().partition("H")
    text = text[: int(count)] if count.isdecimal() and len(count) < 8 else word.strip()
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def delimiters(text: str) -> tuple[str, str]:
    """The signs between parameters and after the last one, the first two of the global section; by default , and ;."""
    between = text[2] if text.startswith("1H") and len(text) > 6 else ","
    rest = text[4:] if text.startswith("1H") else text[1:]
    return between, rest[2] if rest.startswith("1H") and len(rest) > 2 else ";"


def read_fields(line: str, number: int, used: tuple[int, ...]) -> list[int]:
    """Fields of eight columns, those left out 0; only those in use need to be numbers."""
    words = [line[k : k + 8].strip() for k in range(0, 72, 8)]
    words[8] = words[8].replace(" ", "0")
    words = [w if k in used else "0" for k, w in enumerate(words)]
    if wrong := [w for w in words if w and not w.lstrip("+-").isdecimal()]:
        raise GeometryError(f"line {number}: whole numbers were expected in the directory; got {wrong[0]!r}.")
    return [read_integer(w or 0, f"line {number}") for w in words]
