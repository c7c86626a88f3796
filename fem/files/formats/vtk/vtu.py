"""VTU files, VTK's unstructured grids in XML ("VTK File Formats"): text, base64 or appended, compressed or not."""

import base64
import binascii
import lzma
import re
import zlib
from xml.etree.ElementTree import Element

import numpy as np

from fem.errors import MeshError
from fem.files.formats.vtk.cells import raw_mesh
from fem.files.raw import RawMesh
from fem.files.xml import parse_xml

TYPES = {f"{sign}Int{8 * size}": f"{kind}{size}" for sign, kind in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)}
TYPES |= {"Float32": "f4", "Float64": "f8"}


def read_vtu(data: bytes) -> RawMesh:
    """The contents of a file; pieces are put together.

    Raises:
        MeshError: with the array where the file stops making sense.
    """
    appended = re.search(rb"<AppendedData[^>]*>\s*_", data)
    raw = b""
    if appended is not None:
        end = data.rfind(b"</AppendedData>")
        if end < appended.end():
            raise MeshError("the appended data have no end; the file is cut off.")
        raw, data = data[appended.end() : end], data[: appended.end() - 1] + data[end:]
    root = parse_xml(data)
    grid = root.find("UnstructuredGrid")
    if root.tag != "VTKFile" or grid is None:
        raise MeshError(f"Expected type UnstructuredGrid; found {root.get('type', root.tag)}.")
    arrays = Arrays(root, raw)
    pieces = [piece_of(piece, arrays) for piece in grid.iter("Piece")]
    if not pieces:
        raise MeshError("it has no Piece.")
    points, *_ = joined = tuple(np.concatenate(parts) for parts in zip(*(piece[:4] for piece in pieces), strict=True))
    data_of = [
        {
            name: np.concatenate([piece[which][name] for piece in pieces])
            for name in pieces[0][which]
            if all(name in piece[which] for piece in pieces)
        }
        for which in (4, 5)
    ]
    ends = []
    for start, piece in zip(np.cumsum([0, *(len(piece[1]) for piece in pieces)]), pieces, strict=False):
        ends.append(piece[2] + start)
    connectivity = [
        piece[1] + start
        for start, piece in zip(np.cumsum([0, *(len(piece[0]) for piece in pieces)]), pieces, strict=False)
    ]
    return raw_mesh(points, np.concatenate(connectivity), np.concatenate(ends), joined[3], *data_of, old=arrays.old)


def piece_of(piece: Element, arrays: "Arrays") -> tuple:
    """Points, connectivity, ends, types, data of points and of cells."""
    counts = [piece.get(key, "") for key in ("NumberOfPoints", "NumberOfCells")]
    if not all(re.fullmatch(r"\d{1,18}", count) for count in counts):
        raise MeshError(f"a Piece with {counts[0]!r} points and {counts[1]!r} cells.")
    num_points, num_cells = map(int, counts)
    points = [arrays.read(a) for a in piece.iterfind("Points/DataArray")]
    if len(points) != 1 or points[0].shape != (num_points, 3):
        shape = points[0].shape if points else 0
        raise MeshError(f"a Piece of {num_points} points, but the array of its points has the shape {shape}.")
    cells = {a.get("Name"): arrays.read(a).ravel() for a in piece.iterfind("Cells/DataArray")}
    missing = [name for name in ("connectivity", "offsets", "types") if name not in cells]
    if missing:
        raise MeshError(f"its cells have no array {missing[0]!r}.")
    if not len(cells["offsets"]) == len(cells["types"]) == num_cells:
        found = len(cells["offsets"]), len(cells["types"])
        raise MeshError(f"a Piece of {num_cells} cells, but with {found[0]} offsets and {found[1]} types.")
    nodes = cells["connectivity"].astype(np.int64)
    if len(nodes) and not (nodes.min() >= 0 and nodes.max() < num_points):
        wrong = nodes[(nodes < 0) | (nodes >= num_points)][0]
        raise MeshError(f"a cell names node {wrong}, but there are {num_points} nodes.")
    data = []
    for tag, count in (("PointData", num_points), ("CellData", num_cells)):
        values = {a.get("Name", ""): arrays.read(a) for a in piece.iterfind(f"{tag}/DataArray")}
        wrong = [name for name, v in values.items() if len(v) != count]
        if wrong:
            raise MeshError(f"the array {wrong[0]!r} has {len(values[wrong[0]])} rows instead of {count}.")
        data.append({name: v[:, 0] if v.shape[1] == 1 else v for name, v in values.items()})
    return points[0], nodes, cells["offsets"].astype(np.int64), cells["types"], *data


class Arrays:
    """What the header of a file says of its arrays, and the data appended to it."""

    def __init__(self, root: Element, raw: bytes):
        orders = {"LittleEndian": "<", "BigEndian": ">"}
        order, header = root.get("byte_order", "LittleEndian"), root.get("header_type", "UInt32")
        self.compressor = root.get("compressor", "")
        if order not in orders or header not in ("UInt32", "UInt64"):
            raise MeshError(f"a VTKFile of byte_order {order!r} and header_type {header!r}.")
        if self.compressor not in ("", "vtkZLibDataCompressor", "vtkLZMADataCompressor"):
            raise MeshError(f"it is compressed by {self.compressor}; save it with vtkZLibDataCompressor.")
        self.order, self.header = orders[order], np.dtype(f"{orders[order]}{TYPES[header]}")
        section = root.find("AppendedData")
        self.encoding = None if section is None else section.get("encoding", "base64")
        if self.encoding not in (None, "raw", "base64"):
            raise MeshError(f"appended data of encoding {self.encoding!r}.")
        self.raw = raw
        # VTK exchanged two edges of Lagrange hexahedra in its version 9, which writes version 2.1 or more.
        version = re.match(r"(\d{1,9})\.(\d{1,9})$", root.get("version", "0.1"))
        self.old = version is not None and (int(version[1]), int(version[2])) < (2, 1)

    def read(self, element: Element) -> np.ndarray:
        """The array "rows components" of one element."""
        name, kind = element.get("Name", "points"), element.get("type", "")
        kind_of_data, components = element.get("format", "ascii"), element.get("NumberOfComponents", "1")
        if kind not in TYPES:
            raise MeshError(f"the array {name!r} is of type {kind!r}; known are {', '.join(TYPES)}.")
        dtype = np.dtype(f"{self.order}{TYPES[kind]}")
        try:
            if kind_of_data == "ascii":
                words = (element.text or "").split()
                values = np.array([float(w) if dtype.kind == "f" else int(w) for w in words], dtype)
            elif kind_of_data == "binary":
                values = np.frombuffer(self.block(re.sub(rb"\s", b"", (element.text or "").encode()), True), dtype)
            elif kind_of_data == "appended":
                start = int(element.get("offset", "x"))
                if not 0 <= start < len(self.raw) or self.encoding is None:
                    raise MeshError(f"its offset {start} is beyond the {len(self.raw)} bytes appended")
                values = np.frombuffer(self.block(self.raw[start:], self.encoding == "base64"), dtype)
            else:
                raise MeshError(f"its format is {kind_of_data!r}")
            return values.reshape(-1, max(int(components), 1))
        except MeshError as error:
            raise MeshError(f"the array {name!r}: {error}.") from None
        except (ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
            said = str(error).splitlines()[0]
            raise MeshError(f"the array {name!r} of {components} × {kind} is damaged: {said}.") from None

    def block(self, data: bytes, encoded: bool) -> bytes:
        """The bytes of one array, which a header of sizes precedes: of the whole, or of the compressed parts."""
        size = self.header.itemsize
        if not self.compressor:
            (length,), rest = self.take(data, 1, encoded)
            # One stream, or two, of which the first is padded.
            content = decoded(rest, length, encoded) if rest is not None else None
            if content is None:
                content = decoded(data, size + length, True)[size:]
            if len(content) != length:
                raise MeshError(f"{length} bytes are announced, but only {len(content)} follow")
            return content
        (blocks,), _ = self.take(data, 1, encoded)
        if not 0 <= blocks * size <= len(data):
            raise MeshError(f"{blocks} compressed blocks are announced in {len(data)} bytes")
        head, rest = self.take(data, 3 + blocks, encoded)
        full, last, sizes = head[1], head[2], head[3:]
        content = decoded(rest if rest is not None else b"", sum(sizes), encoded)
        if len(content) < sum(sizes):
            raise MeshError(f"{sum(sizes)} compressed bytes are announced, but only {len(content)} follow")
        parts, at = [], 0
        for i, packed in enumerate(sizes):
            expected = last if i == len(sizes) - 1 and last else full
            part = unpacked(content[at : at + packed], expected, self.compressor)
            if len(part) != expected:
                raise MeshError(f"compressed block {i} holds {len(part)} bytes instead of {expected}")
            parts.append(part)
            at += packed
        return b"".join(parts)

    def take(self, data: bytes, count: int, encoded: bool) -> tuple[list[int], bytes | None]:
        """So many numbers of the header, and what follows; None where the two share a base64 stream."""
        size = count * self.header.itemsize
        length = 4 * -(-size // 3) if encoded else size
        numbers = decoded(data[:length], size, encoded)
        if len(numbers) < size:
            raise MeshError("its header of sizes is cut off")
        shared = encoded and size % 3 > 0 and data[length - 1 : length] != b"="
        return np.frombuffer(numbers, self.header, count).tolist(), None if shared else data[length:]


def decoded(data: bytes, length: int, encoded: bool) -> bytes:
    """The first `length` bytes of the data, out of base64 where it is that."""
    if not encoded:
        return data[:length]
    try:
        return base64.b64decode(data[: 4 * -(-length // 3)], validate=True)[:length]
    except binascii.Error as error:
        raise ValueError(f"base64: {error}") from None


def unpacked(data: bytes, size: int, compressor: str) -> bytes:
    """A compressed block, or as much of it as should be there and a byte more."""
    if compressor == "vtkLZMADataCompressor":
        return lzma.LZMADecompressor().decompress(data, size + 1)
    worker = zlib.decompressobj()
    return worker.decompress(data, size + 1) + worker.flush(1)
