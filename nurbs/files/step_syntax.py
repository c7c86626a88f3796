"""The syntax of STEP files, ISO 10303-21: from text to instances, and from an instance to its parameters.

    #12 = KEYWORD('text', 1.5E-3, (#7, #8), .T., $, *, LENGTH_MEASURE(2.));      a simple instance
    #13 = (KEYWORD(…) OTHER_KEYWORD(…));                                         a complex one

A file is cut into statements once; parameters are read only of the instances that are asked for.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nurbs.errors import GeometryError

# Comments and strings that are not closed reach to the end of the file, so that no text takes more than linear time.
STRING = r"'(?:[^']++|'')*+'?"
COMMENTS = re.compile(rf"/\*.*?(?:\*/|\Z)|{STRING}", re.DOTALL)
ENDS = re.compile(rf"{STRING}|;")
HEAD = re.compile(r"\s*#\s*(\d{1,18})\s*=\s*")
KEYWORD = re.compile(r"!?[A-Za-z_][A-Za-z_0-9]*")
TOKENS = re.compile(
    r"""\s*(?:
    (?P<reference>\#\d{1,18}) | (?P<number>[+-]?\d+(?:\.\d*)?(?:[Ee][+-]?\d+)?) | (?P<enumeration>\.[A-Za-z_0-9]+\.)
    | (?P<string>'(?:[^']++|'')*+') | (?P<binary>"[0-9A-Fa-f]*") | (?P<keyword>!?[A-Za-z_][A-Za-z_0-9]*)
    | (?P<mark>[(),$*]))""",
    re.VERBOSE,
)


class Reference(int):
    """#12: the number of another instance."""


@dataclass(frozen=True)
class Enumeration:
    """.T. and its like."""

    name: str


@dataclass(frozen=True)
class StepRecord:
    """KEYWORD(parameters): an instance, a part of a complex one, or a typed parameter."""

    keyword: str
    parameters: list[Any]


class StepFile:
    """The instances of the DATA sections by number; their parameters are read when asked for."""

    def __init__(self, text: str):
        if not text.lstrip().startswith("ISO-10303-21;"):
            raise GeometryError("line 1: a STEP file begins with ISO-10303-21; this one does not.")
        self.text = COMMENTS.sub(lambda m: m[0] if m[0][0] == "'" else re.sub(r"[^\n]", " ", m[0]), text)
        self.bodies: dict[int, tuple[int, int]] = {}
        self._records: dict[int, list[StepRecord]] = {}
        start, last = 0, ""
        for end in (piece.start() for piece in ENDS.finditer(self.text) if piece[0] == ";"):
            if head := HEAD.match(self.text, start, end):
                number = int(head[1])
                if number in self.bodies:
                    raise GeometryError(f"line {self.line(head.start(1))}: #{number} is there already.")
                self.bodies[number] = head.end(), end
            else:
                last = self.text[start:end].strip()
            start = end + 1
        if last != "END-ISO-10303-21":
            raise GeometryError(f"line {self.line(len(text))}: it breaks off before END-ISO-10303-21;")

    def line(self, offset: int) -> int:
        return bisect_right(self._line_starts, offset)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(end.end() for end in re.finditer("\n", self.text))]

    def place(self, number: int) -> str:
        """The instance and its line, for messages."""
        return f"line {self.line(self.bodies[number][0])}, #{number}" if number in self.bodies else f"#{number}"

    def keyword(self, number: int) -> str:
        """The keyword of a simple instance, "" for a complex one."""
        found = KEYWORD.match(self.text, *self.bodies[number])
        return found[0].upper() if found else ""

    def references(self, number: int) -> list[int]:
        """All instances that this one names."""
        return [int(x) for x in re.findall(r"#(\d{1,18})", self.text[slice(*self.bodies[number])])]

    def records(self, number: int) -> list[StepRecord]:
        """The instance: one record, or those of a complex one."""
        if number not in self._records:
            if number not in self.bodies:
                raise GeometryError(f"#{number} is named but not there.")
            self._records[number] = self._parse(number)
        return self._records[number]

    def _parse(self, number: int) -> list[StepRecord]:
        position, end = self.bodies[number]
        several = self.text.startswith("(", position)
        position += several
        found: list[Any] = []
        open_lists: list[tuple[str, list[Any]]] = []
        keyword, after_value, closed = "", False, not several

        def wrong(cause: str) -> GeometryError:
            return GeometryError(f"line {self.line(position)}, #{number}: {cause}.")

        end = position + len(self.text[position:end].rstrip())
        while position < end:
            token = TOKENS.match(self.text, position, end)
            if token is None:
                raise wrong(f"{self.text[position : min(end, position + 20)].strip()!r} is no STEP")
            kind, word = str(token.lastgroup), token[str(token.lastgroup)]
            if keyword and word != "(":
                raise wrong(f"{keyword} lacks its parameters")
            if word == ")":
                if not open_lists:
                    if closed:
                        raise wrong("one parenthesis too many")
                    closed = True
                elif not after_value and open_lists[-1][1]:
                    raise wrong("a parameter is missing before the parenthesis")
                else:
                    name, items = open_lists.pop()
                    (open_lists[-1][1] if open_lists else found).append(StepRecord(name, items) if name else items)
                    after_value = bool(open_lists)
            elif word == ",":
                if not after_value:
                    raise wrong("a parameter is missing before the comma")
                after_value = False
            elif after_value:
                raise wrong("a comma is missing")
            elif word == "(" and (keyword or open_lists):
                open_lists.append((keyword, []))
                keyword = ""
            elif kind == "keyword":
                keyword = word.upper()
            elif open_lists:
                open_lists[-1][1].append(value(kind, word))
                after_value = True
            else:
                raise wrong(f"a keyword was expected; got {word[:20]!r}")
            position = token.end()
        if open_lists or keyword or not closed or not found:
            raise wrong("it breaks off before its last parenthesis")
        return found


def value(kind: str, word: str) -> Any:
    """A parameter; None where it is left out ($) or derived (*)."""
    if kind == "number":
        return float(word)
    if kind == "reference":
        return Reference(word[1:])
    if kind == "enumeration":
        return Enumeration(word[1:-1].upper())
    return word[1:-1].replace("''", "'") if kind == "string" else None
