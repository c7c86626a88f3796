"""What a geometry file holds: patches, a name for each, and the unit of their coordinates."""

from collections.abc import Iterable
from typing import Any

from nurbs.errors import GeometryError

LENGTHS = {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "dm": 0.1, "km": 1e3, "um": 1e-6, "nm": 1e-9}  # in metres
LENGTHS |= {"inch": 0.0254, "ft": 0.3048, "yd": 0.9144, "mile": 1609.344, "mil": 2.54e-5, "uin": 2.54e-8}


class PatchList(list[Any]):
    """The patches of a file.

    `unit` is one of `LENGTHS`, the number of metres as text ("0.3 m") where it is none of them, or None where the file
    does not say; `names` has one entry per patch, "" for those without; `remarks` are what the warning about the file
    said: what was not read, and what was read but not applied.
    """

    def __init__(
        self,
        patches: Iterable[Any] = (),
        names: Iterable[str] | None = None,
        unit: str | None = None,
        remarks: Iterable[str] = (),
    ):
        super().__init__(patches)
        self.names = [""] * len(self) if names is None else list(names)
        self.unit, self.remarks = unit, list(remarks)


def unit_name(metres: float) -> str:
    """The name of the unit of this many metres."""
    near = [name for name, length in LENGTHS.items() if abs(metres - length) <= 1e-6 * length]
    return near[0] if near else f"{metres!r} m"


def in_metres(unit: str) -> float:
    """The length of a unit as `unit_name` says it."""
    return LENGTHS[unit] if unit in LENGTHS else float(unit.removesuffix(" m"))


def check_unit(call: str, unit: str | None) -> None:
    if unit is not None and unit not in LENGTHS:
        raise ValueError(f"`{call}(unit=...)` must be one of {', '.join(LENGTHS)}; got {unit!r}.")


def ratio(unit: str | None, wanted: str) -> float:
    """What coordinates in `unit` are multiplied by to be in the wanted one.

    Raises:
        GeometryError: the file does not say its unit.
    """
    if unit is None:
        raise GeometryError(
            f"it does not say its unit of length, so that none can be applied; read it without {wanted!r}."
        )
    return in_metres(unit) / in_metres(wanted) if unit != wanted else 1.0


def known_unit(unit: str | None, known: Iterable[str], format_name: str) -> str:
    """The unit in which a file is written, "mm" where none is said.

    Raises:
        ValueError: a unit that the format has no name for.
    """
    if unit is not None and unit not in known:
        raise ValueError(f"{format_name} files know the units {', '.join(known)}; got {unit!r}.")
    return unit or "mm"
