"""Examples of design and materials, with small settings and the numbers they claim."""

from pathlib import Path

import pytest

from examples.design import homogenization

pytest.importorskip("matplotlib").use("Agg")


def test_homogenization(tmp_path: Path) -> None:
    """√(k₁ k₂) between two bounds, and its derivatives; Rayleigh's series; Hill's modulus; translation."""
    found = homogenization.main(layers=6, degree=2, cells=6, voxels=24, out=str(tmp_path))
    assert found["lower"] < found["keller"] < found["checkerboard"]
    assert found["checkerboard"] == pytest.approx(found["keller"], rel=3e-3)
    assert abs(found["across"]) < 1e-12
    assert found["in the first"] == pytest.approx(0.5 * found["keller"], rel=1e-2)
    assert found["in the second"] == pytest.approx(0.05 * found["keller"], rel=1e-2)
    assert found["fibres"] == pytest.approx(found["series"], rel=2e-5)
    assert found["bulk"] == pytest.approx(found["hill"], rel=2e-3)
    assert found["shear"] == pytest.approx(1, rel=1e-12)
    assert found["moved"] < 1e-12
    assert (tmp_path / "homogenization.png").exists()


@pytest.mark.slow
def test_a_checkerboard_to_three_digits() -> None:
    found = homogenization.main(voxels=8)
    assert found["checkerboard"] == pytest.approx(found["keller"], rel=2e-4)
    assert found["in the first"] == pytest.approx(0.5 * found["keller"], rel=5e-4)
    assert found["in the second"] == pytest.approx(0.05 * found["keller"], rel=1e-3)
