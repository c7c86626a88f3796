"""What a file claims or refers to, looked at before a reader believes it: sizes beyond the file, and other files."""

import difflib
import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

from fem.errors import MeshError
from fem.files.xml import parse_xml

# Numbers that make meshio's readers allocate or loop; one item takes at least two bytes of text.
COUNTS = {
    ".xml": rb"size\s*=\s*[\"'](\d+)",
    ".dat": rb"\b(?:N|E|I|J|K|NODES|ELEMENTS)\s*=\s*(\d+)",
    ".vol": rb"\n\s*(\d+)\s*(?=\n)",
}
COUNTS[".tec"] = COUNTS[".dat"]
MDPA = r"(Model|Sub)\w*|Properties|Nodes|Elements|Conditions|Geometries|Constraints|Table|Mesh\w*|\w+Data"  # of Kratos
PACKED = 1100  # what deflate makes smaller at most


def checked(path: Path, suffix: str, data: bytes) -> bytes:
    """The data of a file, with whole paths to the files that it refers to.

    Raises:
        MeshError: the file announces more than it can hold, or leads out of its folder.
    """
    for found in re.finditer(COUNTS.get(suffix, rb"(?!)"), data):
        if int(found[1]) > len(data):
            line = data.count(b"\n", 0, found.start(1)) + 1
            raise MeshError(f"line {line}: {int(found[1])} items are announced in a file of {len(data)} bytes.")
    if suffix == ".xml":
        parse_xml(data)
    if suffix == ".mdpa":
        check_mdpa(data.decode("utf-8", "replace").splitlines())
    if suffix in (".post", ".dato"):
        check_permas(data.decode("utf-8", "replace").splitlines())
    if suffix not in (".xdmf", ".xmf"):
        return data
    root = parse_xml(data)
    for topology in root.iter("Topology"):
        announced, item = topology.get("NumberOfElements", ""), topology.find("DataItem")
        rows = "" if item is None else item.get("Dimensions", "")
        if len(rows.split()) == 2 and announced.isdecimal() and int(announced) != int(rows.split()[0]):
            raise MeshError(f"NumberOfElements is {announced}, but the array of cells has the dimensions {rows!r}.")
    for item in root.iter("DataItem"):
        if item.get("Format", "XML") in ("HDF", "Binary"):
            other, _, inside = (item.text or "").strip().partition(":")
            item.text = str(neighbour(path, other)) + (":" + inside if inside else "")
        elif 2 * product(item.get("Dimensions", "")) - 1 > max(len(item.text or ""), 1):
            raise MeshError(f"an item of dimensions {item.get('Dimensions')!r} has {len(item.text or '')} characters.")
    return ElementTree.tostring(root)


def check_permas(lines: list[str]) -> None:
    """Raise where meshio would pass over numbers of a PERMAS file: after a comment among nodes, a misspelt keyword."""
    section = ""
    for number, line in enumerate(lines, 1):
        word = line[1:].split(" ")[0].upper() if line.startswith("$") else ""
        if line.startswith("$") and not word:
            raise MeshError(f"line {number}: a keyword should follow the dollar sign.")
        if word and word not in ("COOR", "ELEMENT") and difflib.get_close_matches(word, ["COOR", "ELEMENT"], 1, 0.7):
            raise MeshError(f"line {number}: no keyword ${word} is known; $COOR or $ELEMENT may be meant.")
        section = word or ("" if line.startswith("!") and section == "COOR" else section)
        if line.strip()[:1].isdigit() and not section:
            raise MeshError(f"line {number}: these numbers belong to no section such as $COOR or $ELEMENT.")
    if not any(line.startswith("$FIN") for line in lines):
        raise MeshError("the file ends without $FIN; it is cut off.")


def check_mdpa(lines: list[str]) -> None:
    """Raise where a block of a Kratos file is none that is known, or does not end, which meshio passes over."""
    blocks: list[str] = []
    for number, line in enumerate(lines, 1):
        first, name = (*line.split(), "", "")[:2]
        if first.lower() == "begin":
            if not re.fullmatch(MDPA, name):
                raise MeshError(f"line {number}: no block {name!r} is known.")
            blocks.append(name)
        elif first.lower() == "end" and (not blocks or blocks.pop() != name):
            raise MeshError(f"line {number}: {line.strip()[:60]!r} ends a block that has not begun.")
        elif first[:1].isdigit() and not blocks:
            raise MeshError(f"line {number}: these numbers belong to no block.")
    if blocks:
        raise MeshError(f"the block {blocks[-1]!r} does not end; the file is cut off.")


def neighbour(path: Path, name: str) -> Path:
    """A file that another one refers to.

    Raises:
        MeshError: it is not in the folder of that, is not there, or refers to others in turn.
    """
    other, folder = (path.parent / name).resolve(), path.parent.resolve()
    if not other.is_relative_to(folder):
        raise MeshError(f"it refers to {name}, outside of its folder.")
    if not other.is_file():
        raise MeshError(f"it refers to {name!r}: no such file.")
    check_hdf5(other)
    return other


def product(dimensions: str) -> int:
    """Of the numbers in a text."""
    size = 1
    for word in re.findall(r"\d+", dimensions):
        size *= int(word)
    return size


def check_hdf5(path: Path) -> None:
    """Raise where arrays are far larger than the file, or in another file.

    Raises:
        ModuleNotFoundError: there is no h5py.
    """
    import h5py

    limit = PACKED * path.stat().st_size
    if not h5py.is_hdf5(path):
        return

    def visit(group: h5py.Group, seen: frozenset) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise MeshError(f"{group.name}/{name} refers to the file {link.filename}, which is refused.")
            if isinstance(link, h5py.SoftLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise MeshError(f"{item.name} refers to other files, which is refused.")
                if item.size is not None and item.size * item.dtype.itemsize > limit:
                    raise MeshError(f"{item.name} announces {item.size} numbers in a file of {limit // PACKED} bytes.")
            elif isinstance(item, h5py.Group) and item.id not in seen:
                visit(item, seen | {item.id})

    with h5py.File(path, "r") as file:
        visit(file, frozenset({file.id}))


def unpacked(data: bytes, limit: int = 10**8) -> bytes:
    """The content of a `.gz` file, which text makes 5 to 20 times as large.

    Raises:
        MeshError: it is more than 100 times as large, or damaged.
    """
    worker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = worker.decompress(data, min(100 * len(data) + 10**6, limit))
    except zlib.error as error:
        raise MeshError(f"its compression is damaged: {error}.") from None
    if not worker.eof:
        raise MeshError("it is cut off, or unpacks to more than 100 times its size.")
    return content
