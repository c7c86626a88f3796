"""Whether a 3dm file is whole, before openNURBS reads it: damaged ones can make it run without end, or crash.

A 3dm file is a row of chunks: a code of four bytes, a length of eight, as many bytes. Tables and objects hold chunks in
turn; a bit of the code says that the last four bytes are the CRC-32 of the others, those of inner chunks left out. The
last chunk has a code of its own.
"""

import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from uuid import UUID

from nurbs.errors import GeometryError

SHORT, CHECKED, TABLE = 0x80000000, 0x8000, 0x10000000  # bits of codes
OBJECTS, BLOCKS, OBJECT, CLASS, ANONYMOUS, END = 0x10000013, 0x10000021, 0x20008070, 0x27FFA, 0x40008000, 0x7FFF
INNER = re.compile(b"|".join(re.escape(struct.pack("<I", code)) for code in (CLASS, ANONYMOUS)))
DEEPEST, SECONDS = 30, 3
PROBE = (
    "import sys, rhino3dm\nmodel = rhino3dm.File3dm.Read(sys.argv[1])\n"
    "if model: [model.Objects[i].Geometry for i in range(len(model.Objects))]"
)
NURBS = [UUID(f"4ed7d4d{digit}-e947-11d3-bfe5-0010830122f0").bytes_le for digit in "de"]  # curves and surfaces
SPLINES = re.compile(
    re.escape(struct.pack("<Iq", 0x2FFFB, 20)) + b"(?:" + b"|".join(map(re.escape, NURBS)) + b").{4}"
    rb"(?=" + re.escape(struct.pack("<I", 0x2FFFC)) + b")",
    re.DOTALL,
)


def check_archive(path: Path) -> None:
    """Look at checksums, and where not all of them can be followed, let another process read the file first.

    Raises:
        GeometryError: the checksum of a spline is wrong, or openNURBS does not come to an end, or crashes.
    """
    data = path.read_bytes()
    head = re.match(rb"3D Geometry File Format +(\d{1,8})", data[:32])
    version = int(head[1]) if head else 0
    chunks = tables(data) if version >= 50 else []
    if chunks is None:
        raise GeometryError("it is damaged, or no 3dm file: it breaks off.")
    checked = [data[start : start + length] for code, start, length in chunks if code in (OBJECTS, BLOCKS)]
    if version < 50 or not all(map(chunks_match, checked)):
        command = [sys.executable, "-c", PROBE, str(path)]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=SECONDS + len(data) / 1e6, check=False)
        except subprocess.TimeoutExpired as error:
            raise GeometryError("it is damaged, or no 3dm file: openNURBS does not come to its end.") from error
        if ended.returncode:
            raise GeometryError("it is damaged, or no 3dm file.")
    for found in SPLINES.finditer(data) if version >= 50 else ():
        (length,) = struct.unpack_from("<q", data, found.end() + 4)
        start = found.end() + 12
        if not 4 <= length <= len(data) - start or not checksum_matches(data[start : start + length], 0):
            raise GeometryError(f"it is damaged, or no 3dm file: the checksum of the spline at byte {start} is wrong.")


def tables(data: bytes) -> list[tuple[int, int, int]] | None:
    """Code, start and length of the outermost chunks, up to the one that ends the file; None where it is not there."""
    found, place = [], 32
    while place + 12 <= len(data):
        code, length = struct.unpack_from("<Iq", data, place)
        place += 12
        if not code & SHORT:
            if not 0 <= length <= len(data) - place:
                return None
            found.append((code, place, length))
            place += length
            if code == END:
                return found
    return None


def chunks_match(body: bytes, depth: int = 0) -> bool:
    """Whether these bytes are chunks, one after another, that are right."""
    place = 0
    while place < len(body):
        length = chunk_length(body, place, depth)
        if length is None:
            return False
        place += length
    return True


def chunk_length(body: bytes, place: int, depth: int) -> int | None:
    """The length of a chunk that is right, with its head; None where there is none."""
    if place + 12 > len(body) or depth > DEEPEST:
        return None
    code, length = struct.unpack_from("<Iq", body, place)
    if code & SHORT:
        return 12
    inner = body[place + 12 : place + 12 + max(length, 0)]
    if length < 0 or len(inner) != length:
        return None
    if code & TABLE or code in (OBJECT, CLASS):
        right = chunks_match(inner[: -4 if code & CHECKED else None], depth + 1)
    else:
        right = not code & CHECKED or checksum_matches(inner, depth)
    return 12 + length if right else None


def checksum_matches(inner: bytes, depth: int) -> bool:
    if len(inner) < 4:
        return False
    own, place = 0, 0
    content = inner[:-4]
    if zlib.crc32(content) == int.from_bytes(inner[-4:], "little"):
        return True
    for found in INNER.finditer(content):
        if found.start() >= place and (length := chunk_length(content, found.start(), depth + 1)):
            own = zlib.crc32(content[place : found.start()], own)
            place = found.start() + length
    return zlib.crc32(content[place:], own) == int.from_bytes(inner[-4:], "little")
