"""Examples of flow: what they claim, with small settings."""

from pathlib import Path

import meshio
import pytest

from examples.flow import darcy

pytest.importorskip("matplotlib").use("Agg")


def test_darcy(tmp_path: Path) -> None:
    """Nothing is lost, layers in series are exact, and the shares of the layers add up to the rate."""
    figures = darcy.main(cells=10, degree=1, cell="quadrilateral", out=str(tmp_path))
    assert figures["imbalance"] < 1e-12
    assert figures["lost"] < 1e-12
    assert figures["rate without gap"] == pytest.approx(figures["exact without gap"], rel=1e-11)
    assert sum(figures[f"share of {name}"] for name in darcy.LAYERS) == pytest.approx(1, rel=1e-9)
    assert 10 < figures["rate"] / figures["rate without gap"] < 12
    assert (tmp_path / "darcy.png").exists()
    written = meshio.read(tmp_path / "darcy.vtu")
    assert {*written.point_data, *written.cell_data} == {"flux", "pressure", "permeability"}
