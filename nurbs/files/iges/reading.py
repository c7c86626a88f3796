"""IGES files (version 5.3), fixed format: curves, surfaces and faces as exact patches.

Curves: 100, 102 (in pieces), 104, 106 (polygons), 110, 112, 126. Surfaces: 118, 120, 122, 128, 196, 198 whole; planes,
cylinders and cones (108, 190, 192, 194) inside faces. Faces (143, 144, 510) are cut to their boundary where that
follows parameter lines or bounds a simple plane region; others come whole, or where a whole one has no end not at all,
and a warning says which. Transformations (124) are applied, and subfigures (308) come at all their instances (408).
Curves that serve others are passed over; those said to serve something, where the file holds surfaces.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.contents import PatchList
from nurbs.files.exchange import Unreadable, moved, read_integers, remarks_of
from nurbs.files.iges.curves import CURVES, POLYGONS, basis_curve
from nurbs.files.iges.directory import Entity, IgesFile, read_file, text_of
from nurbs.files.iges.placements import DEEPEST, own_map
from nurbs.files.iges.splines import end_of_spline
from nurbs.files.iges.surfaces import KINDS, used_by, whole_surface
from nurbs.geometry.patch import Patch

SUBFIGURE, INSTANCE, GROUP, GROUP_FORMS = 308, 408, 402, (1, 7, 14, 15)
OTHERS = {150: "block", 152: "wedge", 154: "solid cylinder", 156: "solid cone", 158: "solid sphere", 160: "solid torus"}
OTHERS |= {162: "solid of revolution", 164: "solid of extrusion", 168: "ellipsoid", 180: "Boolean tree"}
OTHERS |= {412: "rectangular array", 414: "circular array", 416: "external reference", 420: "network subfigure"}
OTHERS |= {430: "solid instance"}
IN_PARAMETERS = 5  # entity use: the curve lies in the parameters of a surface
MOST = 100_000  # placed items


def read(path: Path) -> PatchList:
    return _Reader(read_file(path)).read()


class _Reader:
    """Reads every entity once, and counts what it cannot read or follow."""

    def __init__(self, file: IgesFile):
        self.file, self.entities = file, file.entities
        self.others: Counter[str] = Counter()
        self.untrimmed: list[int] = []
        self._found: dict[int, list[Patch]] = {}
        self._counts: dict[int, int] = {}
        groups = [(n, e) for n, e in file.entities.items() if e.kind == GROUP and e.form in GROUP_FORMS]
        self._groups = {member: n for n, group in groups for member in group.pointers(2, group.count(1))}

    def read(self) -> PatchList:
        entities = self.entities
        used = {name for entity in entities.values() for name in used_by(entity)}
        inside = {n for e in entities.values() if e.kind == SUBFIGURE for n in self._members(e)}
        found: list[tuple[int, Patch, str]] = []
        for number, entity in entities.items():
            if number not in used and number not in inside:
                if self._count(number) > MOST:
                    raise GeometryError(f"{entity.where}: its parts are placed more than {MOST} times.")
                found += self._placed(number, np.eye(4), "")
        if any(patch.directions == 2 for _, patch, _ in found):
            found = [f for f in found if f[1].directions == 2 or not entities[f[0]].dependent]
        self.others.update(OTHERS[e.kind] for e in entities.values() if e.kind in OTHERS)
        remarks = remarks_of(self.others)
        if self.untrimmed:
            names = ", ".join(f"D{n}" for n in self.untrimmed[:8]) + (", …" if len(self.untrimmed) > 8 else "")
            remarks.append(f"whole, without their boundaries, are {len(self.untrimmed)} faces ({names})")
        if self.file.scale != 1:
            remarks.append(f"not applied is the scale of the model, {self.file.scale:g}")
        return PatchList([p for _, p, _ in found], [name for *_, name in found], self.file.unit, remarks)

    def _count(self, number: int, depth: int = 0) -> int:
        """How many entities an entry of the directory is, with those of subfigures at all their instances."""
        if number not in self._counts:
            entity = self.entities.get(number)
            if entity is None:
                raise GeometryError(f"D{number} is named but not there.")
            if depth > DEEPEST:
                raise GeometryError(f"{entity.where}: its subfigures hold each other in a circle.")
            members = self._members(self._figure(entity)) if entity.kind == INSTANCE else []
            self._counts[number] = 1 + sum(self._count(member, depth + 1) for member in members)
        return self._counts[number]

    def _figure(self, instance: Entity) -> Entity:
        (name,) = instance.pointers(1, 1)
        figure = self.entities.get(name)
        if figure is None or figure.kind != SUBFIGURE:
            raise GeometryError(f"{instance.where}: D{name} is no subfigure.")
        return figure

    def _placed(self, number: int, matrix: np.ndarray, holder: str) -> list[tuple[int, Patch, str]]:
        """What an entry of the directory is, at its place."""
        entity = self.entities[number]
        name = self._name(entity) or holder or self._group_name(number)
        if entity.kind == INSTANCE:
            figure = self._figure(entity)
            *offset, scale = [*entity.finite(2, 3), *(entity.finite(5, 1) if len(entity.words) > 5 else [0.0])]
            place = np.diag([scale or 1.0] * 3 + [1.0])
            place[:3, 3] = offset
            place = matrix @ own_map(entity, self.entities) @ place @ own_map(figure, self.entities)
            found: list[tuple[int, Patch, str]] = []
            for member in self._members(figure):
                found += self._placed(member, place, name or text_of(figure.words[2]))
            return found
        if entity.kind not in KINDS or entity.use == IN_PARAMETERS:
            return []
        return [(number, moved(patch, matrix), name) for patch in self._patches(number)]

    def _members(self, figure: Entity) -> list[int]:
        return figure.pointers(4, figure.count(3))

    def _patches(self, number: int) -> list[Patch]:
        if number not in self._found:
            self._found[number] = self._read(number)
        return self._found[number]

    def _read(self, number: int) -> list[Patch]:
        entity = self.entities[number]
        if entity.kind == 106 and entity.form not in POLYGONS:  # points and annotation
            return []
        try:
            if entity.kind in CURVES:
                return [*basis_curve(self.entities, number, entity).whole()]
            patch, applied = whole_surface(self.entities, number, self.file.uncertainty)
        except Unreadable as reason:
            kind, why = KINDS[entity.kind], str(reason)
            self.others[f"{kind} ({why})" if why else kind] += 1
            return []
        except GeometryError:
            raise
        except (ValueError, RuntimeError) as error:  # of what the numbers of this entity make
            raise GeometryError(f"{entity.where}: {error}") from error
        if not applied:
            self.untrimmed.append(number)
        return [patch]

    def _group_name(self, number: int) -> str:
        """The name of the innermost group with a name that an entity is in."""
        for _ in range(DEEPEST):
            if (number := self._groups.get(number, 0)) not in self.entities:
                break
            if name := self._name(self.entities[number]):
                return name
        return ""

    def _name(self, entity: Entity) -> str:
        """The name that a property (406, form 15) gives, or else the label of the directory."""
        for pointer in self._properties(entity):
            other = self.entities.get(pointer)
            if other is not None and other.kind == 406 and other.form == 15 and len(other.words) > 2:
                return text_of(other.words[2])
        return text_of(entity.label)

    def _properties(self, entity: Entity) -> list[int]:
        """The pointers after the parameters of an entity: so many associativities, so many properties."""
        ends = {100: 8, 104: 12, 110: 7, 118: 5, 120: 5, 122: 5, 408: 6}
        try:
            place = ends.get(entity.kind)
            if entity.kind in (126, 128):
                place = end_of_spline(entity)
            elif entity.kind in (102, 143, 144, 402, 510):
                at, more = {102: (1, 2), 143: (3, 4), 144: (3, 5), 402: (1, 2), 510: (2, 4)}[entity.kind]
                place = entity.count(at) + more
            if place is None or len(entity.words) <= place:
                return []
            first = read_integers(entity.numbers(place, 1), entity.where)[0]
            place += 1 + max(first, 0)
            return entity.pointers(place + 1, entity.count(place)) if len(entity.words) > place else []
        except GeometryError:
            return []
