"""Examples of solids: what they claim, with small settings."""

from pathlib import Path

import pytest

from examples.solids import snap_through, thick_plate

pytest.importorskip("matplotlib").use("Agg")


def test_thick_plate(tmp_path: Path) -> None:
    """NAFEMS LE10 on a coarse mesh: the stress at the corner of the hole within 4 %, and both files."""
    figures = thick_plate.main(cells=(4,), out=str(tmp_path))
    assert all(figure == pytest.approx(thick_plate.TARGET, rel=0.04) for figure in figures.values())
    assert {path.name for path in tmp_path.iterdir()} == {"thick_plate.png", "thick_plate.vtu"}


def test_snap_through(tmp_path: Path) -> None:
    """The limit load of the truss; the arch turns twice and ends on the other side under a larger load."""
    figures = snap_through.main(cells=8, out=str(tmp_path))
    assert figures["truss error"] < 1e-9
    assert 0 < figures["lower"] < figures["upper"]
    assert figures["snap"] == pytest.approx(2, abs=0.2)
    assert {path.name for path in tmp_path.iterdir()} == {"snap_through.png"}


@pytest.mark.slow
def test_thick_plate_on_a_finer_mesh() -> None:
    """Within 2 %, evaluated and projected."""
    figures = thick_plate.main(cells=(6,))
    assert all(figure == pytest.approx(thick_plate.TARGET, rel=0.02) for figure in figures.values())
