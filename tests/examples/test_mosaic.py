"""The problems of the Mosaic benchmark: closed forms, published values, gradients."""

import os
from pathlib import Path

import pytest

from examples.benchmarks.solves import mosaic

REFERENCES = Path(os.environ.get("RITZ_SHARED", Path(__file__).parents[3] / "shared")) / "mosaic"


def test_a_slab_of_one_density_has_a_linear_temperature() -> None:
    """C = q² L h / k for the flux q = 1/h over a side of area h; h = 2/N, L = 2."""
    slab = mosaic.thermal(6)
    k = float(mosaic.simp(mosaic.constant(slab, 0.4))[0])
    assert float(mosaic.of_constant(slab, 0.4)) == pytest.approx(6 / k, rel=1e-12)


def test_published_values() -> None:
    """Mosaic v0.2.0, references/forward_{agreement,baseline,source_baseline}.npz, in single precision."""
    cases = mosaic.CASES
    assert float(cases["thermal_mesh_forward_baseline"](8)) == pytest.approx(99.867744, rel=1e-7)
    assert float(cases["thermal_mesh_forward_source_baseline"](4)) == pytest.approx(33.446007, rel=1e-7)
    assert float(cases["structural_mesh_forward_agreement"](0.9)) == pytest.approx(0.00068615656, rel=2e-7)
    assert float(cases["structural_mesh_forward_baseline"](4)) == pytest.approx(0.0036651825, rel=1e-7)


def test_gradients_equal_differences(capsys: pytest.CaptureFixture[str]) -> None:
    figures = mosaic.main(sizes=(4,), repeats=1)
    assert figures["gradient thermal"] < 1e-8
    assert figures["gradient structural"] < 1e-8
    assert "| 4 |" in capsys.readouterr().out.replace("  ", " ")


@pytest.mark.slow
@pytest.mark.skipif(not REFERENCES.exists(), reason="the reference files are not there")
def test_all_reference_values() -> None:
    """Means over solvers in single precision: a few units of the seventh digit on the finest slabs, one elsewhere."""
    for name, difference in mosaic.compare(REFERENCES).items():
        assert difference < (6e-7 if name.endswith("baseline") else 1e-7), name
