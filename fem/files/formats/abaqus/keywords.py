"""The syntax of Abaqus input files: keywords with parameters, each followed by lines of data, in one file or several.

Keywords, parameters and labels are the same in capitals and small letters; a keyword line goes on where it ends with a
comma, and `**` starts a comment (Abaqus Keywords Reference Guide, "Input syntax rules").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import text_of


@dataclass
class Keyword:
    """`*NAME, PARAMETER=value, …` with the lines below it; `place` says where it stands."""

    name: str
    parameters: dict[str, str]
    lines: list[str]
    place: str

    def required(self, parameter: str) -> str:
        """The value of a parameter.

        Raises:
            MeshError: it is not there.
        """
        if not self.parameters.get(parameter):
            raise MeshError(f"{self.place}: *{self.name} needs the parameter {parameter}.")
        return self.parameters[parameter]

    def rows(self) -> list[list[str]]:
        """The entries of each line."""
        return [[word.strip().strip('"') for word in line.rstrip(", ").split(",")] for line in self.lines]

    def integers(self, width: int) -> np.ndarray:
        """Rows of so many integers, each on a line of its own or on several.

        Raises:
            MeshError: a row that is too long or short, or not of integers.
        """
        if all(line.count(",") == width - 1 and line[-1:] != "," for line in self.lines):
            return self.numbers(int).reshape(-1, width)
        rows, row = [], []
        for line in self.lines:
            row += [word for word in line.split(",") if word.strip()]
            if len(row) >= width or line is self.lines[-1]:
                if len(row) != width:
                    raise MeshError(
                        f"{self.place}: *{self.name} needs {width} numbers for each row; got {', '.join(row)[:60]}."
                    )
                rows.append(row)
                row = []
        return Keyword(self.name, {}, [",".join(row) for row in rows], self.place).numbers(int).reshape(-1, width)

    def numbers(self, kind: type) -> np.ndarray:
        """All entries of all lines as numbers; in floating-point numbers a D may stand for the E."""
        words = ",".join(self.lines).split(",") if self.lines else []
        found = []
        for word in words:
            try:
                found.append(int(word) if kind is int else float(word.lower().replace("d", "e")))
            except ValueError:
                found.append(None)
            if found[-1] is None or "_" in word or not abs(found[-1]) < 1e300 or (kind is int and len(word) > 18):
                raise MeshError(f"{self.place}: *{self.name} needs numbers; got {word.strip()[:60]!r}.")
        return np.array(found, dtype=np.int64 if kind is int else float)


def keywords(path: Path, folder: Path | None = None, depth: int = 0) -> Iterator[Keyword]:
    """All keywords of a file and of those that it includes.

    Raises:
        MeshError: data before the first keyword, a parameter given twice, or a file that is included from outside the
            folder, in circles, or is not there.
    """
    folder = path.resolve().parent if folder is None else folder
    found: Keyword | None = None
    for found in split(decoded(path), path.name if depth else ""):
        source = found.parameters.get("INPUT")
        if source is None:
            yield found
            continue
        other = (folder / source).resolve()
        if not other.is_relative_to(folder):
            raise MeshError(f"{found.place}: it refers to {source}, outside of its folder.")
        if not other.is_file() or depth >= 8:
            raise MeshError(f"{found.place}: *{found.name} refers to {source}: no such file, or files in a circle.")
        if found.name == "INCLUDE":
            yield from keywords(other, folder, depth + 1)
        else:
            text = decoded(other)
            found.lines += [line for line in text.splitlines() if line.strip() and not line.startswith("*")]
            yield found


def decoded(path: Path) -> str:
    """The text of a file in whatever encoding it says to be."""
    return text_of(path.read_bytes()).decode("utf-8", "replace")


def split(text: str, name: str) -> Iterator[Keyword]:
    """The keywords of a text, with their data."""
    found, heading, start = None, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("**"):
            continue
        if heading or line.startswith("*"):
            start = start if heading else number
            heading += line
            if line.endswith(","):
                continue
            if found is not None:
                yield found
            found, heading = keyword(heading, f"{name} line {start}".strip()), ""
        elif found is not None:
            found.lines.append(line)
        else:
            raise MeshError(f"line {number}: a file for Abaqus begins with a keyword such as *NODE; got {line[:60]!r}.")
    if found is not None:
        yield found


def keyword(line: str, place: str) -> Keyword:
    """What a keyword line says; commas and = within quotes are part of a label."""
    parts = re.findall(r'(?:[^,"]|"[^"]*")+', line[1:])
    parameters = {}
    for part in parts[1:]:
        key, _, value = part.partition("=")
        if not re.fullmatch(r"\s*[A-Za-z][\w\s-]*", key):
            raise MeshError(f"{place}: expected PARAMETER=value; found {part.strip()[:60]!r}.")
        parameters[" ".join(key.split()).upper()] = value.strip().strip('"')
    return Keyword(" ".join(parts[0].split()).upper() if parts else "", parameters, [], place)
