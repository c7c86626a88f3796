"""Functions that jump between cells, with small settings: rates, balances, cracks and the fluxes through them."""

from pathlib import Path

import pytest

from examples.interfaces import crack, discontinuous_galerkin

pytest.importorskip("matplotlib").use("Agg")


def test_discontinuous_galerkin(tmp_path: Path) -> None:
    figures = discontinuous_galerkin.main(cells=4, degrees=(2,), out=str(tmp_path))
    for kind in discontinuous_galerkin.MESHES:
        assert figures[f"{kind} rate 2"] > 2.75
    assert figures["balance"] < 1e-12
    assert (tmp_path / "discontinuous_galerkin.png").exists()


@pytest.mark.slow
def test_discontinuous_galerkin_of_all_degrees() -> None:
    figures = discontinuous_galerkin.main(cells=8)
    for kind in discontinuous_galerkin.MESHES:
        for degree in (1, 2, 3):
            assert figures[f"{kind} rate {degree}"] == pytest.approx(degree + 1, abs=0.2)


def test_crack(tmp_path: Path) -> None:
    figures = crack.main(cells=4, orders=2, conductances=(2.0,), out=str(tmp_path))
    assert figures["flux"] == pytest.approx(20 / 11, abs=1e-12)
    assert max(figures[name] for name in ("worst", "jump", "derivative")) < 1e-12
    assert figures["l2 rate"] == pytest.approx(1, abs=0.15)
    assert figures["h1 rate"] == pytest.approx(0.5, abs=0.1)
    assert (tmp_path / "crack.png").exists()
