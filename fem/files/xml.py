"""XML of mesh files: parsed without anything that it refers to, and without definitions that grow."""

import re
from xml.etree import ElementTree

from fem.errors import MeshError


def parse_xml(text: bytes) -> ElementTree.Element:
    """The root of a document.

    Raises:
        MeshError: not well-formed, or with entities or inclusions, which mesh files need not.
    """
    if re.search(rb"<!ENTITY|<[\w.]+:include\b|<\?xml-stylesheet", text):
        raise MeshError("it defines entities or includes other files, which is refused.")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        said = re.sub(r": line (\d+), column \d+", r" at line \1", str(error))
        raise MeshError(f"it is not well-formed XML: {said}.") from None
