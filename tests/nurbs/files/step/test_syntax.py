"""The syntax of STEP: every kind of parameter, comments and strings, and damage with its line."""

import pytest

from nurbs.errors import GeometryError
from nurbs.files.step.syntax import Enumeration, Reference, StepFile, StepRecord, encoded

HEAD, TAIL = "ISO-10303-21;\nHEADER;\nENDSEC;\nDATA;\n", "\nENDSEC;\nEND-ISO-10303-21;\n"


def parse(instance: str) -> list[StepRecord]:
    return StepFile(f"{HEAD}#7 = {instance};{TAIL}").records(7)


def test_parameters_of_every_kind():
    (record,) = parse("a_b('it''s', 1., -2E-3, 5, (#3, ()), .T., $, *, \"0F\", LENGTH_MEASURE(2.5))")
    text, *numbers, nested, enumeration, missing, derived, binary, typed = record.parameters
    assert (record.keyword, text, numbers) == ("A_B", "it's", [1.0, -2e-3, 5.0])
    assert nested == [Reference(3), []]
    assert isinstance(nested[0], Reference)
    assert (enumeration, missing, derived, binary) == (Enumeration("T"), None, None, None)
    assert typed == StepRecord("LENGTH_MEASURE", [2.5])
    assert parse("POINT()") == [StepRecord("POINT", [])]


def test_complex_instances():
    assert parse("( A(1.) B()\nC('x') )") == [StepRecord("A", [1.0]), StepRecord("B", []), StepRecord("C", ["x"])]


def test_comments_strings_and_semicolons():
    file = StepFile(HEAD + "/* #1=A(; */ #2 /* two */ = A('; /* no comment */ #3=B();', #9)\n;#4=B(#2);" + TAIL)
    assert list(file.bodies) == [2, 4]
    assert file.records(2)[0].parameters[0] == "; /* no comment */ #3=B();"
    assert (file.keyword(2), file.keyword(4), file.references(4)) == ("A", "B", [2])
    assert file.place(4) == "line 6, #4"
    assert file.place(5) == "#5"
    with pytest.raises(GeometryError, match="#5 is named but not there"):
        file.records(5)


@pytest.mark.parametrize(
    ("instance", "cause"),
    [
        ("A(1.", "it breaks off before its last parenthesis"),
        ("A", "it breaks off"),
        ("", "it breaks off"),
        ("(A(1.)", "it breaks off"),
        ("A(1.))", "one parenthesis too many"),
        ("A(1.,)", "a parameter is missing before the parenthesis"),
        ("A(,1.)", "a parameter is missing before the comma"),
        ("A(1. 2.)", "a comma is missing"),
        ("A(B, 2.)", "B lacks its parameters"),
        ("5", "a keyword was expected; got '5'"),
        ("A(1.2.3)", r"'\.3\)' is no STEP"),
        ("A(nan)", "NAN lacks its parameters"),
        ("A(1.0 ? 2)", r"'\? 2\)' is no STEP"),
    ],
)
def test_damaged_instances(instance: str, cause: str):
    with pytest.raises(GeometryError, match=f"line 5, #7: ({cause})"):
        parse(instance)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("solid cube", "line 1: a STEP file begins with ISO-10303-21;"),
        (HEAD + "#1=A();\n", "line 6: it breaks off before END-ISO-10303-21;"),
        (HEAD + "#1=A('" + TAIL, "it breaks off before"),
        (HEAD + "#1=A(); /* " + TAIL, "it breaks off before"),
        (HEAD + "#1=A();\n#1=B();" + TAIL, "line 6: #1 is there already"),
    ],
)
def test_damaged_files(text: str, cause: str):
    with pytest.raises(GeometryError, match=cause):
        StepFile(text)


def test_line_breaks_mean_nothing():
    """Inside keywords, numbers, references and strings as well; lines are counted all the same."""
    text = HEAD.replace("\n", "\r\n") + "#1=CART\nESIAN_\r\nPOINT('a\nb',(1.\n5,2,#1\n2));\n#2=B(\n?);" + TAIL
    file = StepFile(text)
    (record,) = file.records(1)
    assert (record.keyword, record.parameters) == ("CARTESIAN_POINT", ["ab", [1.5, 2.0, Reference(12)]])
    with pytest.raises(GeometryError, match=r"line 12, #2: .* is no STEP"):
        file.records(2)


def test_what_surrounds_the_data():
    """Comments and blanks in front, lower case, several DATA sections, other sections, text after the end."""
    text = "\n/* it's ISO-10303-21; */ iso-10303-21 ;\nheader;\nendsec;\nanchor;\n<a>=#1;\nendsec;\n"
    text += "reference;\n#9=<other.stp#a>;\nendsec;\ndata;\n#1=a(2.);\nendsec;\nDATA('b',('C'));\n#2=b(#1);\nendsec;\n"
    text += "end-iso-10303-21;\nSIGNATURE;\nab==';\nENDSEC;\n#3=C();"
    file = StepFile(text)
    assert list(file.bodies) == [1, 2]
    assert (file.keyword(1), file.records(2)) == ("A", [StepRecord("B", [Reference(1)])])


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("it''s", "it's"),
        (r"M\X\FCller", "Müller"),
        (r"\X2\03B103B2\X0\ x", "αβ x"),
        (r"\X4\0001F600\X0\ x", "😀 x"),
        (r"a\S\'b", "a§b"),
        (r"a\S\''b", "a§b"),
        (r"\PA\a\S\D", "aÄ"),
        (r"C:\\S\\x", r"C:\S\x"),
    ],
)
def test_alphabets_of_strings(word: str, meaning: str):
    (record,) = parse(f"A('{word}',';#8=B();',2.)")
    assert record.parameters == [meaning, ";#8=B();", 2.0]


@pytest.mark.parametrize("text", ["", "it's", r"C:\S\x", "Müller αβ 😀", r"\X2\00\X0\ ''"])
def test_strings_there_and_back(text: str):
    (record,) = parse(f"A('{encoded(text)}')")
    assert encoded(text).isascii()
    assert record.parameters == [text]


def test_hostile_text_takes_linear_time():
    """A million apostrophes, backslashes, parentheses or comment marks."""
    for junk in ("'", r"\S", "/*", "((", "#1=", ";", "\\\\'", "'\\"):
        with pytest.raises(GeometryError):
            StepFile(HEAD + "#1=A(" + junk * 200_000 + TAIL).records(1)
