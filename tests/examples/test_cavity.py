"""The driven cavity on a coarse mesh: the numbers of the literature to what it resolves, and all files."""

from pathlib import Path

import pytest

from examples.flow import cavity

pytest.importorskip("matplotlib").use("Agg")


def test_cavity(tmp_path: Path) -> None:
    figures = cavity.main(cells=12, out=str(tmp_path))
    for reynolds, least in cavity.PUBLISHED.items():
        assert figures[f"minimum {reynolds}"] == pytest.approx(least, rel=3e-3)
        assert figures[f"ghia {reynolds}"] < 0.01
    assert {p.name for p in tmp_path.iterdir()} == {"cavity.png", *(f"cavity_{n}.vtu" for n in (0, 100, 400))}
