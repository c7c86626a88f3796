"""Parts of STEP files at their places: assemblies, mapped items, their names, and units that differ."""

from pathlib import Path

import pytest
import torch

from nurbs import GeometryError
from tests.nurbs.file_cases import read, refuse, step

MM, INCH = "SI_UNIT(.MILLI.,.METRE.)", "CONVERSION_BASED_UNIT('INCH',#{free})"
LINE = [[0.0, 0, 0], [1, 0, 0]]


def context(number: int, unit: str = "mm") -> str:
    """A context with a unit of length, from this number on."""
    if unit == "mm":
        unit_text = f"#{number + 1}=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));\n"
    elif unit == "m":
        unit_text = f"#{number + 1}=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT($,.METRE.));\n"
    else:
        unit_text = (
            f"#{number + 1}=(CONVERSION_BASED_UNIT('INCH',#{number + 2})LENGTH_UNIT()NAMED_UNIT(#{number + 4}));\n"
            f"#{number + 2}=LENGTH_MEASURE_WITH_UNIT(LENGTH_MEASURE(25.4),#{number + 3});\n"
            f"#{number + 3}=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));\n"
            f"#{number + 4}=DIMENSIONAL_EXPONENTS(1.,0.,0.,0.,0.,0.,0.);\n"
        )
    head = "GEOMETRIC_REPRESENTATION_CONTEXT(3)"
    return f"#{number}=({head}GLOBAL_UNIT_ASSIGNED_CONTEXT((#{number + 1}))REPRESENTATION_CONTEXT('',''));\n{unit_text}"


def product(number: int, name: str, representation: int) -> str:
    return (
        f"#{number}=PRODUCT('{name}','{name}','',());\n"
        f"#{number + 1}=PRODUCT_DEFINITION_FORMATION('','',#{number});\n"
        f"#{number + 2}=PRODUCT_DEFINITION('design','',#{number + 1},$);\n"
        f"#{number + 3}=PRODUCT_DEFINITION_SHAPE('','',#{number + 2});\n"
        f"#{number + 4}=SHAPE_DEFINITION_REPRESENTATION(#{number + 3},#{representation});\n"
    )


PART = """#1=CARTESIAN_POINT('',(0.,0.,0.));
#2=CARTESIAN_POINT('',(1.,0.,0.));
#3=POLYLINE('',(#1,#2));
#4=GEOMETRIC_CURVE_SET('',(#3));
#5=AXIS2_PLACEMENT_3D('',#1,$,$);
#6=DIRECTION('',(0.,0.,1.));
#7=DIRECTION('',(0.,1.,0.));
#8=CARTESIAN_POINT('',(10.,20.,30.));
#9=AXIS2_PLACEMENT_3D('',#8,#6,#7);
#10=SHAPE_REPRESENTATION('',(#4,#5),#100);
"""  # #9 turns x to y and moves the origin


def related(one: int, other: int, number: int, first: int = 5, second: int = 9) -> str:
    return (
        f"#{number}=ITEM_DEFINED_TRANSFORMATION('','',#{first},#{second});\n"
        f"#{number + 1}=(REPRESENTATION_RELATIONSHIP('','',#{one},#{other})"
        f"REPRESENTATION_RELATIONSHIP_WITH_TRANSFORMATION(#{number})SHAPE_REPRESENTATION_RELATIONSHIP());\n"
    )


ASSEMBLY = PART + "#11=SHAPE_REPRESENTATION('',(#9),#100);\n" + related(10, 11, 20) + context(100)
MOVED = [[10.0, 20, 30], [10, 21, 30]]


def test_a_part_in_an_assembly(tmp_path: Path):
    """It is at its place only, and has the name of its product."""
    text = step(ASSEMBLY + product(30, "bolt", 10) + product(40, "machine", 11))
    found = read(tmp_path / "p.step", text)
    assert [patch.control_points.tolist() for patch in found] == [MOVED]
    assert (found.names, found.unit) == (["bolt"], "mm")


def test_a_part_at_two_places_and_in_two_levels(tmp_path: Path):
    """#12 holds #11 moved, which holds #10 moved twice: the maps follow each other from the inside out."""
    more = related(10, 11, 22, 5, 5) + "#12=SHAPE_REPRESENTATION('',(#9),#100);\n" + related(11, 12, 24)
    found = read(tmp_path / "p.step", step(ASSEMBLY + more))
    x = sorted(patch.control_points.tolist() for patch in found)
    assert x == sorted([[[-10.0, 30, 60], [-11, 30, 60]], MOVED])


def test_the_product_structure_says_which_is_the_part(tmp_path: Path):
    """The relationship names the assembly first; its transformation leads from the second to the first."""
    text = ASSEMBLY.replace("('','',#10,#11)", "('','',#11,#10)").replace("('','',#5,#9)", "('','',#9,#5)")
    usage = """#60=NEXT_ASSEMBLY_USAGE_OCCURRENCE('1','','',#42,#32,$);
#61=PRODUCT_DEFINITION_SHAPE('','',#60);
#62=CONTEXT_DEPENDENT_SHAPE_REPRESENTATION(#21,#61);
"""
    found = read(tmp_path / "p.step", step(text + product(30, "bolt", 10) + product(40, "machine", 11) + usage))
    assert [patch.control_points.tolist() for patch in found] == [MOVED]


def test_relationships_without_transformation_join(tmp_path: Path):
    more = "#12=SHAPE_REPRESENTATION('',(#5),#100);\n#13=SHAPE_REPRESENTATION_RELATIONSHIP('','',#12,#10);\n"
    text = ASSEMBLY.replace("('','',#10,#11)", "('','',#12,#11)") + more + product(30, "bolt", 12)
    found = read(tmp_path / "p.step", step(text))
    assert ([patch.control_points.tolist() for patch in found], found.names) == ([MOVED], ["bolt"])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("#9", MOVED),
        ("CARTESIAN_TRANSFORMATION_OPERATOR_3D('','',#7,$,#8,2.,#6)", [[10.0, 20, 30], [10, 22, 30]]),
        ("CARTESIAN_TRANSFORMATION_OPERATOR_3D('','',$,$,#8,$,$)", [[10.0, 20, 30], [11, 20, 30]]),
        (
            "(CARTESIAN_TRANSFORMATION_OPERATOR(#7,$,#8,0.5)CARTESIAN_TRANSFORMATION_OPERATOR_3D(#6)"
            "FUNCTIONALLY_DEFINED_TRANSFORMATION('',$)GEOMETRIC_REPRESENTATION_ITEM()REPRESENTATION_ITEM(''))",
            [[10.0, 20, 30], [10, 20.5, 30]],
        ),
    ],
)
def test_mapped_items(target: str, expected: list, tmp_path: Path):
    """A representation as an item of another one, once where it is mapped and nowhere else."""
    more = """#11=REPRESENTATION_MAP(#5,#10);
#12=MAPPED_ITEM('copy',#11,#13);
#14=SHAPE_REPRESENTATION('',(#12),#100);
"""
    more += "#13=" + target + ";\n" if "(" in target else ""
    text = PART + more.replace("#13)", f"{target})" if "(" not in target else "#13)") + context(100)
    found = read(tmp_path / "p.step", step(text))
    assert [patch.control_points.tolist() for patch in found] == [expected]


def test_parts_in_other_units(tmp_path: Path):
    """An inch part in a millimetre assembly."""
    text = PART.replace("#100);", "#200);").replace("#100)", "#200)") + context(200, "inch") + context(100)
    text += "#11=SHAPE_REPRESENTATION('',(#9),#100);\n" + related(10, 11, 20)
    found = read(tmp_path / "p.step", step(text))
    torch.testing.assert_close(
        found[0].control_points, torch.tensor([[10.0, 20, 30], [10, 45.4, 30]], dtype=torch.float64), rtol=1e-14, atol=0
    )
    assert found.unit == "mm"
    found = read(tmp_path / "p.step", step(text), unit="cm")
    assert found[0].control_points[1].tolist() == pytest.approx([1, 4.54, 3])
    assert found.unit == "cm"


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("m", 1e3), ("inch", 25.4)])
def test_units_are_said_and_applied(unit: str, factor: float, tmp_path: Path):
    text = step(PART + context(100, unit))
    found = read(tmp_path / "p.step", text)
    assert ([patch.control_points.tolist() for patch in found], found.unit) == ([LINE], unit)
    found = read(tmp_path / "p.step", text, unit="mm")
    assert (found[0].control_points[1].tolist(), found.unit) == (pytest.approx([factor, 0, 0], rel=1e-15), "mm")


def test_files_without_a_unit(tmp_path: Path):
    text = step(PART.replace("#100", "$"))
    assert read(tmp_path / "p.step", text).unit is None
    with pytest.raises(GeometryError, match=r"p\.step: it does not say its unit of length"):
        read(tmp_path / "p.step", text, unit="mm")
    odd = context(100, "inch").replace("25.4", "300.")
    assert read(tmp_path / "p.step", step(PART + odd)).unit == "0.3 m"
    assert read(tmp_path / "p.step", step(PART + odd), unit="mm")[0].control_points[1, 0] == pytest.approx(300)


def test_what_is_no_shape_is_named(tmp_path: Path):
    more = "#11=BLOCK('',#5,1.,2.,3.);\n"
    text = PART.replace("(#4,#5)", "(#4,#5,#11)") + more + context(100)
    assert len(read(tmp_path / "p.step", step(text), r"not read are 1 BLOCK\.$")) == 1


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("('','',#5,#9)", "('','',#5,#6)", "#20: line .*, #6 is no AXIS2_PLACEMENT_3D"),
        ("('','',#5,#9)", "('','',#5)", "is no ITEM_DEFINED_TRANSFORMATION with 4 parameters"),
        ("TRANSFORMATION(#20)", "TRANSFORMATION(#99)", "a transformation was expected; #99 is not there"),
        (".MILLI.", ".MILI.", "#101: a unit of length was expected"),
        (".METRE.", ".RADIAN.", "#101: a unit of length was expected"),
        ("(#4,#5)", "(#4,#55)", "#10: #55 is not there"),
        ("(0.,1.,0.)", "(0.,0.,2.)", "the axes of its placement are parallel"),
    ],
)
def test_damage(old: str, new: str, cause: str, tmp_path: Path):
    assert old in ASSEMBLY
    refuse(tmp_path / "p.step", step(ASSEMBLY.replace(old, new, 1)), cause)


def test_circles_and_towers_of_placements_end(tmp_path: Path):
    """Representations placed in each other; thirty levels of two instances each would be a thousand million parts."""
    circle = ASSEMBLY + related(11, 10, 22)
    refuse(tmp_path / "p.step", step(circle), "placed in (itself|each other)")
    refuse(tmp_path / "p.step", step(ASSEMBLY + related(11, 11, 22)), "a representation is placed in itself")
    tower, last = PART + context(100), 10
    for level in range(30):
        number = 1000 + 10 * level
        tower += f"#{number}=SHAPE_REPRESENTATION('',(#9),#100);\n" + related(last, number, number + 1)
        tower += related(last, number, number + 4)
        last = number
    refuse(tmp_path / "p.step", step(tower), "its parts are placed more than 100000 times")
