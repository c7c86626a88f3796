"""Examples of waves: what they claim, with small settings."""

from pathlib import Path

import pytest

from examples.waves import maxwell

pytest.importorskip("matplotlib").use("Agg")


def test_maxwell(tmp_path: Path) -> None:
    """Ten resonances of the square, none spurious, on a grid and on distorted triangles; the singular one of the L."""
    coarse, fine = (maxwell.main(cells=n, out=str(tmp_path) if n == 4 else None) for n in (4, 8))
    assert fine["grid"] < 3e-3
    assert fine["triangles"] < 1.5e-3
    assert fine["L"] < 3e-4
    assert all(coarse[name] / fine[name] > 8 for name in ("grid", "triangles"))  # h⁴
    assert {path.name for path in tmp_path.iterdir()} == {"maxwell.png", "maxwell.vtu"}
