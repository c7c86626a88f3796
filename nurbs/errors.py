"""The package's own exceptions; everything else raises `ValueError` or `TypeError` at the boundary."""


class GeometryError(ValueError):
    """A geometry file that cannot be used: the message names the file, the line or entity, and the cause."""
