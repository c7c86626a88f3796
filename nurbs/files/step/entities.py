"""What the readers of STEP entities share: parameters, points, directions and placements of instances."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import read_numbers
from nurbs.files.step.syntax import Enumeration, Reference, StepFile, StepRecord

DEEPEST = 40  # curves of curves of curves


@dataclass(frozen=True)
class Scope:
    """The file as a representation sees it: plane angles in radians per unit, and the distance of points that are one.

    `within` are the instances that are being read, to notice those that refer to themselves.
    """

    file: StepFile
    angle: float = 1.0
    uncertainty: float = 0.0
    within: list[int] = field(default_factory=list)

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        if number in self.within or len(self.within) > DEEPEST:
            raise GeometryError(f"{self.file.place(number)}: it refers to itself, or through too many others.")
        self.within.append(number)
        try:
            yield
        finally:
            self.within.pop()


def parts_of(file: StepFile, number: int) -> dict[str, list[Any]]:
    """The records of an instance by keyword; a simple one has one."""
    return {record.keyword: record.parameters for record in file.records(number)}


def keyword_of(file: StepFile, name: Any, what: str, where: str) -> str:
    """The keyword of the instance that a parameter names, "" for a complex one.

    Raises:
        GeometryError: it names none.
    """
    if not isinstance(name, Reference) or name not in file.bodies:
        raise GeometryError(f"{where}: a {what} was expected; {f'#{name} is not there' if name else 'none is named'}.")
    return file.keyword(name)


def parameters_of(file: StepFile, name: Any, keyword: str, count: int, where: str) -> list[Any]:
    """The parameters, without the name, of an instance of one kind."""
    keyword_of(file, name, keyword, where)
    record: StepRecord = file.records(name)[0]
    if record.keyword != keyword or len(record.parameters) != count + 1:
        raise GeometryError(f"{where}: {file.place(name)} is no {keyword} with {count + 1} parameters.")
    return record.parameters[1:]


def coordinates(file: StepFile, name: Any, keyword: str, where: str) -> list[float]:
    (values,) = parameters_of(file, name, keyword, 1, where)
    return read_numbers(values, file.place(name)).ravel().tolist()


def point(file: StepFile, name: Any, where: str) -> np.ndarray:
    """A CARTESIAN_POINT "3"; a third coordinate that is left out is 0."""
    return _three(coordinates(file, name, "CARTESIAN_POINT", where), where)


def direction(file: StepFile, name: Any, where: str) -> np.ndarray:
    """A DIRECTION "3" of length one."""
    x = _three(coordinates(file, name, "DIRECTION", where), where)
    length = np.linalg.norm(x)
    if not 0 < length < np.inf:
        raise GeometryError(f"{where}: a direction of some length was expected; got {x.tolist()}.")
    return x / length


def _three(values: list[float], where: str) -> np.ndarray:
    x = np.array(values)
    if x.shape not in ((2,), (3,)) or not np.isfinite(x).all():
        raise GeometryError(f"{where}: three finite coordinates were expected; got {values}.")
    return np.pad(x, (0, 3 - len(x)))


def number_of(value: Any, where: str) -> float:
    """A number, or a typed one, LENGTH_MEASURE(2.)."""
    value = value.parameters[0] if isinstance(value, StepRecord) and len(value.parameters) == 1 else value
    found = read_numbers(value, where)
    if found.shape != () or not np.isfinite(found):
        raise GeometryError(f"{where}: a number was expected; got {value!r}.")
    return float(found)


def lengths(values: list[Any], where: str) -> list[float]:
    """Positive numbers."""
    found = [number_of(value, where) for value in values]
    if not min(found, default=1.0) > 0:
        raise GeometryError(f"{where}: positive lengths were expected; got {found}.")
    return found


def flag(value: Any, where: str) -> bool:
    if not isinstance(value, Enumeration) or value.name not in ("T", "F", "TRUE", "FALSE"):
        raise GeometryError(f"{where}: .T. or .F. was expected; got {value!r}.")
    return value.name in ("T", "TRUE")


def listed_names(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise GeometryError(f"{where}: a list of instances was expected; got {value!r}.")
    return value


def placement(file: StepFile, name: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Origin and orthonormal axes "3 3", as rows, of an AXIS2_PLACEMENT_3D or _2D."""
    return (
        plane_axes(file, name, where)
        if keyword_of(file, name, "", where) == "AXIS2_PLACEMENT_2D"
        else axes(file, name, where)
    )


def plane_axes(file: StepFile, name: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    location, x = parameters_of(file, name, "AXIS2_PLACEMENT_2D", 2, where)
    e = np.array([1.0, 0, 0]) if x is None else direction(file, x, where)
    return point(file, location, where), np.array([e, [-e[1], e[0], 0.0], [0.0, 0, 1]])


def axes(file: StepFile, name: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Origin and orthonormal axes "3 3" of an AXIS2_PLACEMENT_3D, its z axis and approximate x axis given or not."""
    location, *directions = parameters_of(file, name, "AXIS2_PLACEMENT_3D", 3, where)
    origin = read_numbers(coordinates(file, location, "CARTESIAN_POINT", where), where)
    z, x = (None if d is None else read_numbers(coordinates(file, d, "DIRECTION", where), where) for d in directions)
    z = np.array([0.0, 0, 1]) if z is None else z
    if x is None:
        x = np.array([1.0, 0, 0]) if z.shape != (3,) or abs(z[0]) < 0.9 * np.linalg.norm(z) else np.array([0.0, 1, 0])
    if not origin.shape == z.shape == x.shape == (3,):
        raise GeometryError(f"{where}: a placement of three coordinates was expected.")
    with np.errstate(all="ignore"):
        z = z / np.linalg.norm(z)
        x = x - (x @ z) * z
        frame = np.stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z])
    if not np.isfinite(frame).all() or not np.isfinite(origin).all():
        raise GeometryError(f"{where}: the axes of its placement are parallel, of no length, or not finite.")
    return origin, frame


def axis_line(file: StepFile, name: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Point and direction of an AXIS1_PLACEMENT."""
    location, along = parameters_of(file, name, "AXIS1_PLACEMENT", 2, where)
    e = np.array([0.0, 0, 1]) if along is None else direction(file, along, where)
    return point(file, location, where), e


def vector(file: StepFile, name: Any, where: str) -> np.ndarray:
    """A VECTOR, its direction times its magnitude."""
    along, magnitude = parameters_of(file, name, "VECTOR", 2, where)
    return direction(file, along, where) * number_of(magnitude, where)


def instance_name(file: StepFile, number: int) -> str:
    """The name of a representation item; "" where it has none."""
    parts = parts_of(file, number)
    first = parts.get("REPRESENTATION_ITEM") or (next(iter(parts.values())) if len(parts) == 1 else [])
    name = first[0] if first and isinstance(first[0], str) else ""
    return "" if name.strip().upper() in ("", "NONE") else name
