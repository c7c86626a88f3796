"""STEP files (ISO 10303-21; entities of ISO 10303-42) of any AP: curves, surfaces and faces as exact patches.

Curves are B-splines in all forms, lines, circles, ellipses, hyperbolas, parabolas and polygons, cut by parameters or
points (TRIMMED_CURVE, EDGE_CURVE) or composed. Surfaces are B-splines, spheres, tori, planes, cylinders, cones, those
of revolution and of linear extrusion. Faces are cut to their boundary where that follows parameter lines or bounds a
simple plane region; others come whole, or where a whole one has no end not at all, and a warning says which. Placements
of assemblies and mapped items are applied; all coordinates are in the unit of the first representation. Curves that
serve as edges are passed over where the file holds surfaces. Patches that are no splines have parameters of their own.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.contents import PatchList, unit_name
from nurbs.files.exchange import Unreadable, moved, read_text, remarks_of
from nurbs.files.step.assembly import CONTAINERS, Occurrence, Part, is_item, read_assembly, scaling
from nurbs.files.step.curves import CURVES, whole_curve
from nurbs.files.step.entities import Scope, instance_name
from nurbs.files.step.surfaces import FACES, SURFACES, whole_surface
from nurbs.files.step.syntax import StepFile
from nurbs.files.step.units import Units
from nurbs.geometry.patch import Patch

EDGES = ("EDGE_CURVE", "SURFACE_CURVE", "SEAM_CURVE", "INTERSECTION_CURVE", "PCURVE", "DEFINITIONAL_REPRESENTATION")
CONSUMERS = (
    *CURVES,
    *SURFACES,
    *FACES,
    "FACE_BOUND",
    "FACE_OUTER_BOUND",
    "COMPOSITE_CURVE_SEGMENT",
    "SUBFACE",
    "SUBEDGE",
)
CONSUMERS += (
    "REPARAMETRISED_COMPOSITE_CURVE_SEGMENT",
    "DEFINITIONAL_REPRESENTATION",
    "POINT_ON_CURVE",
    "POINT_ON_SURFACE",
)


class _Reader:
    """Reads every item once, and counts what it cannot read or follow."""

    def __init__(self, file: StepFile):
        self.file = file
        self.others: Counter[str] = Counter()
        self.untrimmed: list[int] = []
        self._found: dict[tuple[int, Units], list[Patch]] = {}

    def patches(self, number: int, units: Units) -> list[Patch]:
        """An item in the coordinates of its representation."""
        if (number, units) not in self._found:
            self._found[number, units] = self._read(number, Scope(self.file, units.angle, units.uncertainty))
        return self._found[number, units]

    def _read(self, number: int, scope: Scope) -> list[Patch]:
        keyword = self.file.keyword(number)
        try:
            if keyword in CURVES or self._is_spline_curve(number):
                return [*whole_curve(scope, number)]
            patch, applied = whole_surface(scope, number)
        except Unreadable as reason:
            why = str(reason)
            self.others[keyword if why in ("", keyword) else f"{keyword} ({why})"] += 1
            return []
        except GeometryError:
            raise
        except (ValueError, RuntimeError) as error:  # of what the numbers of this item make
            raise GeometryError(f"{self.file.place(number)}: {error}") from error
        if not applied:
            self.untrimmed.append(number)
        return [patch]

    def remarks(self) -> list[str]:
        remarks, names = remarks_of(self.others), [f"#{number}" for number in self.untrimmed]
        if names:
            listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            remarks.append(f"whole, without their boundaries, are {len(names)} faces ({listed})")
        return remarks

    def _is_spline_curve(self, number: int) -> bool:
        records = [] if self.file.keyword(number) else self.file.records(number)
        return any(record.keyword.startswith("B_SPLINE_CURVE") for record in records)


def read(path: Path) -> PatchList:
    file = StepFile(read_text(path))
    reader, order = _Reader(file), {number: i for i, number in enumerate(file.bodies)}
    occurrences = read_assembly(file)
    users = _users(file)
    free = _free_items(file, users, {n for o in occurrences for n in o.part.items}, reader.others)
    contexts = {o.part.units for o in occurrences}
    units = contexts.pop() if len(contexts) == 1 else Units()
    occurrences.append(Occurrence(Part(units, dict.fromkeys(free, "")), np.eye(4), "", units.length))
    occurrences.sort(key=lambda o: min((order[n] for n in o.part.items), default=0))
    holding = [o for o in occurrences if o.part.items] + occurrences
    length = next((o.length for o in holding if o.length is not None), None)
    found: list[tuple[int, Patch, str]] = []
    seen: set[tuple[int, bytes]] = set()
    for occurrence in occurrences:
        matrix = scaling(occurrence.length, length) @ occurrence.matrix
        for number in sorted(occurrence.part.items, key=order.__getitem__):
            if (number, matrix.tobytes()) not in seen:
                seen.add((number, matrix.tobytes()))
                name = instance_name(file, number) or occurrence.part.items[number] or occurrence.name
                found += [(number, moved(p, matrix), name) for p in reader.patches(number, occurrence.part.units)]
        reader.others.update(occurrence.part.others)
    if not any(patch.directions == 2 for _, patch, _ in found):
        alone = sum(file.keyword(number) == "EDGE_CURVE" and not ns for number, ns in users.items())
        reader.others.update({"EDGE_CURVE": alone} if alone else {})
    else:
        edges = {n for n, ns in users.items() if any(file.keyword(user) in EDGES for user in ns)}
        found = [f for f in found if f[1].directions == 2 or f[0] not in edges]
    unit = None if length is None else unit_name(length)
    return PatchList([patch for _, patch, _ in found], [name for *_, name in found], unit, reader.remarks())


def _users(file: StepFile) -> dict[int, list[int]]:
    """Items and what holds them → the instances that name them."""
    users: dict[int, list[int]] = {n: [] for n in file.bodies if file.keyword(n) in CONTAINERS or is_item(file, n)}
    for number in file.bodies:
        for name in file.references(number):
            if name in users and name != number:
                users[name].append(number)
    return users


def _free_items(file: StepFile, users: dict[int, list[int]], held: set[int], others: Counter[str]) -> list[int]:
    """Items of no representation that serve no other geometry; those that serve something else are counted."""
    found = []
    for number in users.keys() - held:
        if file.keyword(number) in CONTAINERS or file.keyword(number) == "EDGE_CURVE":
            continue
        kinds, stack, seen = set(), [number], {number}
        while stack:
            for user in users[stack.pop()]:
                keyword = file.keyword(user)
                if keyword not in CONTAINERS:
                    kinds.add(keyword)
                elif user not in seen:
                    seen.add(user)
                    stack.append(user)
        kinds = {kind for kind in kinds if "STYLED_ITEM" not in kind and "LAYER" not in kind}
        if not kinds:
            found.append(number)
        elif not kinds & {*CONSUMERS} and "" not in kinds:
            others[f"{file.keyword(number)} of {min(kinds)}"] += 1
    return found
