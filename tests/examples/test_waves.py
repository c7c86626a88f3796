"""Examples of waves: what they claim, with small settings."""

from pathlib import Path

import pytest

from examples.waves import maxwell

pytest.importorskip("matplotlib").use("Agg")


def test_maxwell(tmp_path: Path) -> None:
    """Ten resonances of the square, none spurious, on a grid and on distorted triangles; the singular one of the L."""
    figures = maxwell.main(cells=6, out=str(tmp_path))
    assert figures["grid"] < 8e-3
    assert figures["triangles"] < 4e-3
    assert figures["L"] < 1e-3
    assert {path.name for path in tmp_path.iterdir()} == {"maxwell.png", "maxwell.vtu"}
