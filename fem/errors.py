"""The package's own exceptions; everything else raises `ValueError` or `TypeError` at the boundary."""


class MeshError(ValueError):
    """A mesh or mesh file that cannot be used: the message names the file, cell or node and the cause."""
