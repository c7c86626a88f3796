"""Contact by bounds: the conditions of contact to round-off, Hertz's figures on a graded mesh."""

from pathlib import Path

import pytest

from examples.interfaces import contact

pytest.importorskip("matplotlib").use("Agg")


def test_contact(tmp_path: Path) -> None:
    """Half-width and peak of the pressure are Hertz's within a per cent; what must be exact is."""
    coarse = contact.main(cells=24, depth=0.02)
    fine = contact.main(cells=48, depth=0.005, out=str(tmp_path))
    assert (tmp_path / "contact.png").exists()
    for figures in (coarse, fine):
        assert figures["half-width"] < 0.01
        assert figures["pressure"] < 0.01
        assert figures["balance"] < 1e-10
        assert figures["force"] > -1e-11
        assert figures["gap"] >= 0
        assert figures["complementarity"] < 1e-10
        assert figures["slope"] < 1e-8
