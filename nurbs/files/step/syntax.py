"""The syntax of STEP files, ISO 10303-21: from text to instances, and from an instance to its parameters.

    #12 = KEYWORD('text', 1.5E-3, (#7, #8), .T., $, *, LENGTH_MEASURE(2.));      a simple instance
    #13 = (KEYWORD(…) OTHER_KEYWORD(…));                                         a complex one

A file is cut into statements once; parameters are read only of the instances that are asked for. Line breaks and other
control characters mean nothing, inside tokens and strings as well; comments may stand between any tokens; sections
other than DATA are passed over, and so is what follows END-ISO-10303-21.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from nurbs.errors import GeometryError

# Comments and strings that are not closed reach to the end of the file, so that no text takes more than linear time.
# The sign after \S\ belongs to the string, be it an apostrophe, which some programs write twice.
INSIDE = r"(?:[^'\\]++|''|\\\\|\\S\\(?:''(?!\s*[,)])|.)|\\)*+"
STRING = rf"'{INSIDE}'?"
COMMENTS = re.compile(rf"/\*.*?(?:\*/|\Z)|{STRING}", re.DOTALL)
BREAKS = re.compile(r"\r\n|[\x00-\x08\n-\x1f\x7f]")
ENDS = re.compile(rf"{STRING}|;")
HEAD = re.compile(r"\s*#\s*(\d{1,18})\s*=\s*+(?!<)")  # #5 = <address> is elsewhere
KEYWORD = re.compile(r"!?[A-Za-z_][A-Za-z_0-9]*")
TOKENS = re.compile(
    rf"""\s*(?:
    (?P<reference>\#\d{{1,18}}) | (?P<number>[+-]?\d+(?:\.\d*)?(?:[Ee][+-]?\d+)?) | (?P<enumeration>\.[A-Za-z_0-9]+\.)
    | (?P<string>'{INSIDE}') | (?P<binary>"[0-9A-Fa-f]*") | (?P<keyword>!?[A-Za-z_][A-Za-z_0-9]*)
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
        text = COMMENTS.sub(lambda m: m[0] if m[0][0] == "'" else re.sub(r"[^\r\n]", " ", m[0]), text)
        breaks = [(m.start(), m.end(), m[0] in ("\r\n", "\r", "\n")) for m in BREAKS.finditer(text)]
        self.text = BREAKS.sub("", text)
        self._lines: list[int] = []  # where lines begin
        gone = 0
        for start, end, is_line in breaks:
            if is_line:
                self._lines.append(start - gone)
            gone += end - start
        if not re.match(r"\s*ISO-10303-21\s*;", self.text, re.IGNORECASE):
            raise GeometryError("line 1: a STEP file begins with ISO-10303-21; this one does not.")
        self.bodies: dict[int, tuple[int, int]] = {}
        self._records: dict[int, list[StepRecord]] = {}
        start = 0
        for end in (piece.start() for piece in ENDS.finditer(self.text) if piece[0] == ";"):
            if head := HEAD.match(self.text, start, end):
                number = int(head[1])
                if number in self.bodies:
                    raise GeometryError(f"line {self.line(head.start(1))}: #{number} is there already.")
                self.bodies[number] = head.end(), end
            elif end - start < 40 and self.text[start:end].strip().upper() == "END-ISO-10303-21":
                break
            start = end + 1
        else:
            raise GeometryError(f"line {self.line(len(text))}: it breaks off before END-ISO-10303-21;")

    def line(self, offset: int) -> int:
        return 1 + bisect_right(self._lines, offset)

    def place(self, number: int) -> str:
        """The instance and its line, for messages."""
        return f"line {self.line(self.bodies[number][0])}, #{number}" if number in self.bodies else f"#{number}"

    def keyword(self, number: int) -> str:
        """The keyword of a simple instance, "" for a complex one."""
        found = KEYWORD.match(self.text, *self.bodies[number])
        return found[0].upper() if found else ""

    def references(self, number: int) -> list[int]:
        """All instances that this one names."""
        found = re.findall(rf"{STRING}|#\s*(\d{{1,18}})", self.text[slice(*self.bodies[number])])
        return [int(x) for x in found if x]

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
    return decoded(word[1:-1]) if kind == "string" else None


CONTROLS = re.compile(
    r"\\\\|\\S\\(''|.)|\\X\\([0-9A-Fa-f]{2})|\\X2\\((?:[0-9A-Fa-f]{4})*)\\X0\\|\\X4\\((?:[0-9A-Fa-f]{8})*)\\X0\\|\\P[A-I]\\"
)


def decoded(word: str) -> str:
    """The text of a string: apostrophes once, other alphabets as what they mean."""

    def meaning(found: re.Match[str]) -> str:
        shifted, byte, pairs, quadruples = found.groups()
        if found[0] == "\\\\":
            return "\\"
        if shifted:
            return chr(ord(shifted[0]) + 128) if ord(shifted[0]) < 128 else shifted
        if byte:
            return chr(int(byte, 16))
        code, encoding = (pairs, "utf-16-be") if pairs else (quadruples, "utf-32-be")
        return bytes.fromhex(code).decode(encoding, errors="replace") if code else ""

    return CONTROLS.sub(meaning, word).replace("''", "'")


def encoded(text: str) -> str:
    """The text as a STEP string without its apostrophes around it, in ASCII."""
    words = re.split(r"([^ -~]+)", text)
    words[::2] = [word.replace("\\", "\\\\").replace("'", "''") for word in words[::2]]
    words[1::2] = ["\\X4\\" + word.encode("utf-32-be", "replace").hex().upper() + "\\X0\\" for word in words[1::2]]
    return "".join(words)
