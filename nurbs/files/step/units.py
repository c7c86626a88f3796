"""Units and tolerances of the contexts of STEP representations."""

from dataclasses import dataclass
from math import isclose, pi

from nurbs.errors import GeometryError
from nurbs.files.exchange import read_numbers
from nurbs.files.step.entities import number_of, parts_of
from nurbs.files.step.syntax import Enumeration, Reference, StepFile, StepRecord

PREFIXES = {"EXA": 1e18, "PETA": 1e15, "TERA": 1e12, "GIGA": 1e9, "MEGA": 1e6, "KILO": 1e3, "HECTO": 1e2, "DECA": 10.0}
PREFIXES |= {"DECI": 0.1, "CENTI": 1e-2, "MILLI": 1e-3, "MICRO": 1e-6, "NANO": 1e-9, "PICO": 1e-12, "FEMTO": 1e-15}
PREFIXES |= {"ATTO": 1e-18}
DEEPEST = 8  # units defined by units


@dataclass(frozen=True)
class Units:
    """Metres per unit of length, None where it is not said; radians per unit of angle; the uncertainty in lengths."""

    length: float | None = None
    angle: float = 1.0
    uncertainty: float = 0.0


def read_units(file: StepFile, number: int) -> Units:
    """The units of a representation context."""
    if number not in file.bodies:
        raise GeometryError(f"#{number} is named but not there.")
    parts = parts_of(file, number)
    found: dict[str, float] = {}
    for name in _names(parts.get("GLOBAL_UNIT_ASSIGNED_CONTEXT")):
        kind, size = unit(file, name)
        found.setdefault(kind, size)
    uncertainty = 0.0
    for name in _names(parts.get("GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT")):
        measure = parts_of(file, name).get("UNCERTAINTY_MEASURE_WITH_UNIT")
        if measure and isinstance(measure[0], StepRecord) and "LENGTH" in measure[0].keyword:
            uncertainty = abs(number_of(measure[0], file.place(name)))
    angle = found.get("angle", 1.0)
    if isclose(angle, pi / 180, rel_tol=1e-6):  # files give some of its digits
        angle = pi / 180
    return Units(found.get("length"), angle, uncertainty)


def _names(parameters: list | None) -> list[Reference]:
    names = parameters[0] if parameters else []
    return [name for name in names if isinstance(name, Reference)] if isinstance(names, list) else []


def unit(file: StepFile, name: Reference, depth: int = 0) -> tuple[str, float]:
    """ "length" in metres, "angle" in radians, or "" for others."""
    where = file.place(name)
    parts = parts_of(file, name)
    kinds = {"LENGTH_UNIT": "length", "PLANE_ANGLE_UNIT": "angle"}
    kind = next((kinds[part] for part in parts if part in kinds), "")
    if not kind:
        return "", 1.0
    if "SI_UNIT" in parts:
        prefix = parts["SI_UNIT"][0] if parts["SI_UNIT"] else None
        base = parts["SI_UNIT"][-1].name if isinstance(parts["SI_UNIT"][-1], Enumeration) else ""
        known = prefix is None or (isinstance(prefix, Enumeration) and prefix.name in PREFIXES)
        if not known or base != {"length": "METRE", "angle": "RADIAN"}[kind]:
            raise GeometryError(f"{where}: a unit of {kind} was expected; got {parts['SI_UNIT']}.")
        return kind, 1.0 if prefix is None else PREFIXES[prefix.name]
    if "CONVERSION_BASED_UNIT" in parts and len(parts["CONVERSION_BASED_UNIT"]) == 2 and depth < DEEPEST:
        measure = parts["CONVERSION_BASED_UNIT"][1]
        if isinstance(measure, Reference):
            value, base_unit = _measure(file, measure)
            size = value * unit(file, base_unit, depth + 1)[1]
            if not 0 < size < 1e30:
                raise GeometryError(f"{where}: its size must be positive; got {size}.")
            return kind, size
    raise GeometryError(f"{where}: neither an SI unit nor one that is converted to another.")


def _measure(file: StepFile, name: Reference) -> tuple[float, Reference]:
    """The value and the unit of a measure with unit, simple or complex."""
    where = file.place(name)
    for part in parts_of(file, name).values():
        if len(part) == 2 and isinstance(part[1], Reference):
            value = part[0].parameters if isinstance(part[0], StepRecord) else part[0]
            return float(read_numbers(value, where).ravel()[:1].sum()), part[1]
    raise GeometryError(f"{where}: a measure with its unit was expected.")
