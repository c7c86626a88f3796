"""Examples in time: what they claim, with small settings."""

import math
from pathlib import Path

import pytest

from examples.transient import allen_cahn, heat

pytest.importorskip("matplotlib").use("Agg")


def test_heat(tmp_path: Path) -> None:
    """NAFEMS T3 to 0.1 %, order 2, and the amplitude that a thermometer tells."""
    figures = heat.main(cells=20, steps=48, out=str(tmp_path))
    assert figures["error"] < 1e-3
    assert figures["rate"] == pytest.approx(2, abs=0.2)
    assert figures["amplitude"] == pytest.approx(80, abs=1e-9)
    assert (tmp_path / "heat.png").exists()


def test_allen_cahn(tmp_path: Path) -> None:
    """The squared radius falls by two in each unit of time, and the energy in each step."""
    figures = allen_cahn.main(cells=24, eps=0.06, steps=20, out=str(tmp_path))
    assert figures["rate"] == pytest.approx(-2, rel=0.06)
    assert figures["rise"] < 0
    assert figures["radius"] == pytest.approx(math.sqrt(0.16), rel=0.03)
    assert {p.name for p in tmp_path.iterdir()} == {"allen_cahn", "allen_cahn.png", "allen_cahn.pvd"}
    assert len(list((tmp_path / "allen_cahn").iterdir())) == 21
