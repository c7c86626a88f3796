"""Waves through a square that lets them out, with small settings: rates of a plane wave, a lens and its derivative."""

from pathlib import Path

import pytest

from examples.waves import helmholtz

pytest.importorskip("matplotlib").use("Agg")


def test_helmholtz(tmp_path: Path) -> None:
    figures = helmholtz.main(cells=6, wave_number=3.0, out=str(tmp_path))
    for degree in (1, 2, 3):
        assert figures[f"rate {degree}"] > degree + 0.85
    assert figures["focus"] > 1.5
    assert figures["derivative"] == pytest.approx(figures["difference"], rel=1e-6)
    assert (tmp_path / "helmholtz.png").exists()
