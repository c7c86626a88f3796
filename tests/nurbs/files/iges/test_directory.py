"""The sections of IGES files: bytes and columns, strings, delimiters, counts, names, units."""

from pathlib import Path

import pytest

from nurbs import Curve, GeometryError, circle, read_geometry, write_geometry
from nurbs.files.iges.directory import cut, directory, text_of
from tests.nurbs.file_cases import assert_equal, iges, in_space, read, refuse
from tests.nurbs.patches import random

LINE = "110,1.,2.,3.,4.,6.,3.;"


def replaced(text: str, number: int, old: str, new: str) -> str:
    """With a change in one line that keeps its columns."""
    lines = text.split("\n")
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words", "ended"),
    [
        ("1,2.,3;rest", ["1", "2.", "3"], True),
        ("1,4Ha,b;,2;", ["1", "4Ha,b;", "2"], True),
        ("1, 3H;;;;", ["1", " 3H;;;"], True),
        ("1,2", ["1", "2"], False),
        ("1,9Habc", ["1", "9Habc"], False),
        ("1,,3HABCD,5;", ["1", "", "3HABCD", "5"], True),  # a wrong count
        (";", [""], True),
    ],
)
def test_words(text: str, words: list[str], ended: bool):
    assert cut(text, ",", ";") == (words, ended)


def test_strings():
    assert text_of(" 4Hbolt") == "bolt"
    assert text_of("7HM\u00c3\u00bcller") == "Müller"  # UTF-8, one sign for each byte
    assert text_of("5HM\u00fcll") == "Müll"
    assert text_of("label") == "label"


def test_harmless_differences(tmp_path: Path):
    """Blank lines, other line ends, text after the last line, a mark of UTF-8, and 80 signs instead of bytes."""
    path, curve = tmp_path / "p.igs", Curve(random(5, 3))
    text = write_geometry(path, curve, names=["spline"]).read_text()
    lines = text.splitlines()
    for changed in (
        text + "\n\n\x1a",
        text + "anything\nS      1\n",
        "\ufeff" + text,
        "\r\n".join(lines),
        "\r".join(lines),
        "\n\n".join(lines),
        "\n   \n".join(lines),
        "\n".join(line.rstrip() for line in lines),
        "\n".join(line[:73] for line in lines),
        text.replace(lines[0], "Würfel".ljust(72) + lines[0][72:]),
        text.replace(lines[-1], "S      9G      9D      9P      9".ljust(72) + lines[-1][72:]),
    ):
        found = read(path, changed)
        assert_equal(found, [curve])
        assert found.names == ["spline"]
    whole = lines[0].replace(" " * 12, "Würfel".encode().decode("latin-1").ljust(12), 1)
    assert_equal(read(path, text.replace(lines[0], whole).encode("latin-1")), [curve])


def test_strings_over_two_lines_and_in_parameters(tmp_path: Path):
    """A name with both delimiters, longer than a line; it is found where it is said to be."""
    name = "a name, with; both marks, that is longer than the sixty-four columns of a line; really"
    patches = [circle(), circle(2.0), Curve(random(4, 3))]
    path = write_geometry(tmp_path / "p.igs", patches, names=[name, "", "x"])
    assert_equal(read_geometry(path), [in_space(patch) for patch in patches])
    assert read_geometry(path).names == [name, "", "x"]
    assert [entity.kind for entity in directory(path.read_text()).values()] == [126, 406, 126, 126, 406]


def test_labels_are_names(tmp_path: Path):
    text = iges([(110, LINE, {})])
    assert read(
        tmp_path / "p.igs", replaced(text, 3, " " * 24 + " " * 7 + "0D", " " * 16 + "    EDGE" + " " * 7 + "0D")
    ).names == ["EDGE"]


def test_names_of_groups(tmp_path: Path):
    """What has no name of its own has that of the innermost group with one."""
    entities = [
        (402, "402,2,3,5,0,1,9;", {"form": 7}),
        (402, "402,1,7;", {"form": 7}),
        (110, LINE, {}),
        (110, LINE, {}),
        (406, "406,1,4Hbolt;", {"form": 15}),
    ]
    assert read(tmp_path / "p.igs", iges(entities)).names == ["bolt", "bolt"]
    entities[1] = (402, "402,1,1;", {"form": 7})
    assert read(tmp_path / "p.igs", iges(entities)).names == ["bolt", ""]


def test_wrong_counts_of_lines(tmp_path: Path):
    """More or fewer lines than there are: the parameters end at their mark."""
    path = tmp_path / "p.igs"
    body = "126,1,1,0,0,1,0,0.,0.,1.,1.,1.,1.,1.,2.,3.,4.,5.,6.,0.,1.,0.,0.,0.;"
    text = iges([(126, body, {}), (110, LINE, {})])
    assert len(read(path, text)) == 2
    count = f"{126:>8}{0:>8}{0:>8}{2:>8}"
    for wrong in (0, 1, 3):
        assert len(read(path, text.replace(count, f"{126:>8}{0:>8}{0:>8}{wrong:>8}"))) == 2


def test_contradictions_in_the_directory(tmp_path: Path):
    path, text = tmp_path / "p.igs", iges([(110, LINE, {}), (110, LINE, {})])
    start, other = f"{110:>8}{2:>8}{0:>8}", f"{110:>8}{1:>8}{0:>8}"
    assert start in text
    refuse(path, text.replace(start, other), "line 5, entity 110: its parameters, line P1, belong to the entry D1")
    refuse(
        path, text.replace("110,1.,2.", "126,1.,2.", 1), "line 3, entity 110: its parameters are those of entity '126'"
    )
    second = f"{110:>8}{0:>8}{0:>8}{1:>8}"
    refuse(path, text.replace(second, second.replace("110", "126"), 1), "said to be of kind 110 and of kind 126")
    lines = text.split("\n")
    refuse(path, "\n".join(lines[:4] + lines[6:]), "line 6: parameters belong to the entry D3, which is not there")
    refuse(path, "\n".join(lines[:2] + lines[4:]), "belong to the entry D3|lines are missing")
    refuse(
        path,
        "\n".join(lines[:2] + lines[3:4] + lines[2:3] + lines[4:]),
        "P0 to P0, are not there",
    )
    refuse(
        path,
        replaced(text, 2, f"{0:>8}{0:>8}00000000", f"{'x':>8}{0:>8}00000000"),
        "whole numbers were expected in the dir",
    )
    refuse(path, text.replace("S      1", "C      1", 1), "compressed and binary IGES are not read")


@pytest.mark.parametrize("unit", ["inch", "mm", "ft", "mile", "m", "km", "mil", "um", "cm", "uin"])
def test_units(unit: str, tmp_path: Path):
    path = write_geometry(tmp_path / "p.igs", circle(2.0), unit=unit)
    assert read_geometry(path).unit == unit
    assert read_geometry(path, unit=unit)[0].control_points[0].tolist() == [2, 0, 0]
    assert read_geometry(path, unit="m").unit == "m"


@pytest.mark.parametrize(
    ("words", "unit"), [("2,2HMM", "mm"), (",", "inch"), ("3,2HCM", "cm"), ("3,1HX", None), ("1,", "inch")]
)
def test_units_by_number_and_name(words: str, unit: str | None, tmp_path: Path):
    head = f"1H,,1H;,1Ha,1Ha,1Hx,1Hx,32,38,6,308,15,1Ha,1.,{words};"
    found = read(tmp_path / "p.igs", iges([(110, LINE, {})], head=head))
    assert found.unit == unit
    if unit is None:
        with pytest.raises(GeometryError, match="it does not say its unit of length"):
            read_geometry(tmp_path / "p.igs", unit="mm")
    scaled = head.replace("1Ha,1.,", "1Ha,0.5,")
    assert read(
        tmp_path / "p.igs", iges([(110, LINE, {})], head=scaled), r"not applied is the scale of the model, 0\.5"
    )
