"""IGES files (version 5.3), fixed format: rational B-spline curves (entity 126) and surfaces (entity 128).

Surfaces come whole: trimming (entities 141 to 144) is passed over, and so are the curves that serve it where the file
holds surfaces. Transformations (entity 124) are applied; coordinates stay in the file's own unit of length. Other kinds
of surfaces are left out with a warning.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import (
    in_space,
    make_patch,
    read_integer,
    read_integers,
    read_numbers,
    read_text,
    to_u_fastest,
    u_fastest,
    warn_of,
)
from nurbs.geometry.patch import Patch

LEFT_OUT = {108: "plane", 114: "parametric spline surface", 118: "ruled surface", 120: "surface of revolution"}
LEFT_OUT |= {122: "tabulated cylinder", 140: "offset surface", 190: "plane surface", 192: "cylinder", 194: "cone"}
LEFT_OUT |= {196: "sphere", 198: "torus"}


@dataclass(frozen=True)
class Entity:
    """An entry of the directory with its parameters as text."""

    kind: int
    transformation: int
    dependent: bool
    words: list[str]
    where: str

    def numbers(self, start: int, count: int) -> np.ndarray:
        """Parameters from `start` on; those left out are 0, and exponents may be written with D."""
        if not 0 <= count <= len(self.words) - start:
            raise GeometryError(f"{self.where}: {start + count} parameters were expected; got {len(self.words)}.")
        words = [w.strip().replace("D", "E").replace("d", "e") or "0" for w in self.words[start : start + count]]
        return read_numbers(words, self.where)


def read(path: Path) -> list[Patch]:
    entities = directory(read_text(path))
    patches = [(e, read_patch(e, entities)) for e in entities.values() if e.kind in (126, 128)]
    others = Counter(LEFT_OUT[e.kind] for e in entities.values() if e.kind in LEFT_OUT)
    warn_of(others, path)
    surfaces = any(e.kind == 128 for e, _ in patches)
    return [patch for e, patch in patches if e.kind == 128 or not (surfaces and e.dependent)]


def directory(text: str) -> dict[int, Entity]:
    """The entities by the number of their first line in the directory."""
    sections: dict[str, list[tuple[int, str]]] = {letter: [] for letter in "SGDPT"}
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) < 73 or line[72] not in sections:
            raise GeometryError(f"line {number}: a line of IGES has one of S, G, D, P, T in column 73.")
        sections[line[72]].append((number, line))
    if not sections["T"]:
        raise GeometryError("it breaks off before the terminate section.")
    between, after = delimiters("".join(line[:72] for _, line in sections["G"]))
    entries, parameters = sections["D"], sections["P"]
    if len(entries) % 2:
        raise GeometryError(f"line {entries[-1][0]}: entries of the directory have two lines.")
    found = {}
    for i in range(0, len(entries), 2):
        where = f"line {entries[i][0]}"
        first, second = (read_fields(line, number) for number, line in entries[i : i + 2])
        kind, start, count = first[0], first[1], second[3]
        if not 1 <= start <= start + count - 1 <= len(parameters) and kind in (124, 126, 128):
            raise GeometryError(f"{where}: its parameters, lines P{start} to P{start + count - 1}, are not there.")
        body = "".join(line[:64] for _, line in parameters[start - 1 : start - 1 + count]).partition(after)
        if kind in (124, 126, 128) and not body[1]:
            raise GeometryError(f"{where}, entity {kind}: its parameters do not end with {after!r}.")
        words = body[0].split(between)
        found[i + 1] = Entity(kind, first[6], first[8] // 10000 % 100 != 0, words, f"{where}, entity {kind}")
    return found


def delimiters(text: str) -> tuple[str, str]:
    """The signs between parameters and after the last one, the first two of the global section; by default , and ;."""
    between = text[2] if text.startswith("1H") and len(text) > 6 else ","
    rest = text[4:] if text.startswith("1H") else text[1:]
    return between, rest[2] if rest.startswith("1H") and len(rest) > 2 else ";"


def read_fields(line: str, number: int) -> list[int]:
    """Nine of the ten fields of eight columns; text counts as 0."""
    words = [line[k : k + 8].strip() for k in range(0, 72, 8)]
    return [read_integer(w or 0, f"line {number}") if w.lstrip("+-").isdecimal() or not w else 0 for w in words]


def read_patch(entity: Entity, entities: dict[int, Entity]) -> Patch:
    r = 1 if entity.kind == 126 else 2
    head = read_integers(entity.numbers(1, 2 * r), entity.where)
    counts, degree = [k + 1 for k in head[:r]], head[r:]
    if min(counts) < 1 or min(degree) < 0:
        raise GeometryError(f"{entity.where}: control points {counts} and degrees {degree} make no sense.")
    place, knots = 1 + 2 * r + (4 if r == 1 else 5), []
    for n, p in zip(counts, degree, strict=True):
        knots.append(entity.numbers(place, n + p + 1))
        place += n + p + 1
    number = int(np.prod(counts, dtype=object))
    weights = entity.numbers(place, number)
    points = entity.numbers(place + number, 3 * number).reshape(number, 3)
    if entity.transformation:
        matrix = entities.get(entity.transformation)
        if matrix is None or matrix.kind != 124:
            raise GeometryError(f"{entity.where}: D{entity.transformation} is no transformation.")
        rows = matrix.numbers(1, 12).reshape(3, 4)
        with np.errstate(all="ignore"):  # what is not finite is reported below
            points = points @ rows[:, :3].T + rows[:, 3]
    table = u_fastest(np.column_stack([points, weights]), counts, entity.where)
    return make_patch(table[..., :3], table[..., 3], knots, degree, entity.where)


# -- writing -----------------------------------------------------------------------------------------------------------


def write(path: Path, patches: list[Patch], name: str) -> None:
    name = name.encode("ascii", "replace").decode()
    time = datetime.now().strftime("%Y%m%d.%H%M%S")
    patches = in_space(patches, "IGES")
    largest = max(float(p.control_points.abs().max()) for p in patches)
    strings = [hollerith(s) for s in (",", ";", name, name, "ritz", "ritz")]
    header = [*strings, "32", "308", "15", "308", "15", hollerith(name), "1.", "2", "2HMM", "1", "0.01"]
    header += [hollerith(time), "1.E-7", repr(largest), "1H", "1H", "11", "0", hollerith(time)]
    lines = [f"{'':72}S      1"]
    lines += [f"{line:72}G{i:7}" for i, line in enumerate(wrapped(header, 72), 1)]
    entries: list[str] = []
    parameters: list[str] = []
    for patch in patches:
        kind, form = (126, 128)[patch.directions - 1], 0
        body = wrapped([str(kind), *words_of(patch)], 64)
        pointer, own = len(entries) + 1, len(parameters) + 1
        fields = [[kind, own, 0, 0, 0, 0, 0, 0, "00000000"], [kind, 0, 0, len(body), form, "", "", "", 0]]
        for i, row in enumerate(fields):
            entries.append("".join(f"{field:>8}" for field in row) + f"D{pointer + i:7}")
        parameters += [f"{line:64}{pointer:8}P{own + i:7}" for i, line in enumerate(body)]
    end = f"S{1:7}G{len(lines) - 1:7}D{len(entries):7}P{len(parameters):7}"
    path.write_text("\n".join([*lines, *entries, *parameters, f"{end:72}T      1", ""]), encoding="ascii")


def words_of(patch: Patch) -> list[str]:
    """The parameters of entity 126 or 128."""
    points, weights = to_u_fastest(patch)
    polynomial = int((weights == weights[0]).all())
    numbers = [t.tolist() for t in patch.knots] + [weights.tolist(), points.ravel().tolist()]
    numbers.append([float(bound) for bounds in patch.domain() for bound in bounds])
    flags = [0, 0, polynomial, 0] if patch.directions == 1 else [0, 0, polynomial, 0, 0]
    if patch.directions == 1:
        numbers.append([0.0, 0.0, 0.0])
    head = [*(n - 1 for n in patch.shape), *patch.degree, *flags]
    return [*map(str, head), *(repr(x).replace("e", "E") for part in numbers for x in part)]


def hollerith(text: str) -> str:
    return f"{len(text)}H{text}"


def wrapped(words: list[str], width: int) -> list[str]:
    """Words, separated and ended, in lines of no more than `width` signs; no number is broken."""
    lines = [""]
    for i, word in enumerate(words):
        text = word + (";" if i == len(words) - 1 else ",")
        if len(lines[-1]) + len(text) > width:
            lines.append("")
        lines[-1] += text
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines
