"""Writing IGES files: B-spline curves (126) and surfaces (128), their names as properties (406, form 15)."""

from datetime import datetime
from pathlib import Path

from nurbs.files.contents import PatchList, known_unit
from nurbs.files.exchange import in_space, to_u_fastest
from nurbs.files.iges.directory import UNITS
from nurbs.geometry.patch import Patch


def write(path: Path, contents: PatchList, name: str) -> None:
    name = name.encode("ascii", "replace").decode()
    time = datetime.now().strftime("%Y%m%d.%H%M%S")
    patches = in_space(contents, "IGES")
    flag, spelling = UNITS[known_unit(contents.unit, UNITS, "IGES")]
    largest = max(float(p.control_points.abs().max()) for p in patches)
    strings = [hollerith(s) for s in (",", ";", name, name, "ritz", "ritz")]
    header = [
        *strings,
        "32",
        "308",
        "15",
        "308",
        "15",
        hollerith(name),
        "1.",
        str(flag),
        hollerith(spelling),
        "1",
        "0.01",
    ]
    header += [hollerith(time), "1.E-7", repr(largest), "1H", "1H", "11", "0", hollerith(time)]
    lines = [f"{'':72}S      1"]
    lines += [f"{line:72}G{i:7}" for i, line in enumerate(wrapped(header, 72), 1)]
    entries: list[str] = []
    parameters: list[str] = []

    def add(kind: int, words: list[str], form: int, status: str) -> None:
        body = wrapped([str(kind), *words], 64)
        pointer, own = len(entries) + 1, len(parameters) + 1
        fields = [[kind, own, 0, 0, 0, 0, 0, 0, status], [kind, 0, 0, len(body), form, "", "", "", 0]]
        for i, row in enumerate(fields):
            entries.append("".join(f"{field:>8}" for field in row) + f"D{pointer + i:7}")
        parameters.extend(f"{line:64}{pointer:8}P{own + i:7}" for i, line in enumerate(body))

    for patch, label in zip(patches, contents.names, strict=True):
        pointers = ["0", "1", str(len(entries) + 3)] if label else []  # no associativity, one property
        add((126, 128)[patch.directions - 1], [*words_of(patch), *pointers], 0, "00000000")
        if label:
            add(406, ["1", hollerith(label.encode("ascii", "replace").decode())], 15, "00010000")
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
