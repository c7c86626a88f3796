"""The head of a classic netCDF file, followed before the netCDF library is given it, which believes every count.

NetCDF Users Guide, "The Classic Format": counts are big-endian, of four bytes (eight in version 5); names and values of
attributes are padded to a multiple of four.
"""

from fem.errors import MeshError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of each type of numbers
DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12


def check_head(data: bytes) -> None:
    """Follow the head of a file that begins with CDF.

    Raises:
        MeshError: it announces more than the file holds, or makes no sense.
    """
    Head(data).follow()


class Head:
    """A place in the head."""

    def __init__(self, data: bytes):
        self.data, self.at, self.version = data, 4, data[3]

    def follow(self) -> None:
        self.count()  # of records
        for _ in range(self.items(DIMENSIONS)):
            self.skip(self.count())
            self.count(1 << 62)
        self.attributes()
        for _ in range(self.items(VARIABLES)):
            self.skip(self.count())
            self.skip(self.width * self.count())
            self.attributes()
            self.size_of_type()
            self.count(1 << 62)  # its size, which the dimensions tell as well
            self.skip(4 if self.version == 1 else 8)

    @property
    def width(self) -> int:
        return 8 if self.version == 5 else 4

    def number(self, width: int) -> int:
        if self.at + width > len(self.data):
            raise MeshError("its head is cut off.")
        self.at += width
        return int.from_bytes(self.data[self.at - width : self.at], "big")

    def count(self, limit: int | None = None) -> int:
        """A number of things, each of one byte at least."""
        value = self.number(self.width)
        if value > (len(self.data) if limit is None else limit):
            raise MeshError(f"byte {self.at - self.width}: {value} items are announced in {len(self.data)} bytes.")
        return value

    def skip(self, size: int) -> None:
        self.at += -(-size // 4) * 4
        if self.at > len(self.data):
            raise MeshError("its head is cut off.")

    def items(self, kind: int) -> int:
        """How many dimensions, variables or attributes follow."""
        found, count = self.number(4), self.count()
        if found not in (0, kind) or (found == 0 and count):
            raise MeshError(f"byte {self.at - 4 - self.width}: the head of the file makes no sense.")
        return count

    def attributes(self) -> None:
        for _ in range(self.items(ATTRIBUTES)):
            self.skip(self.count())
            size = self.size_of_type()
            self.skip(size * self.count())

    def size_of_type(self) -> int:
        kind = self.number(4)
        if kind not in SIZES:
            raise MeshError(f"byte {self.at - 4}: there is no type of numbers {kind}.")
        return SIZES[kind]
