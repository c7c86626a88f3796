"""What the README shows runs as written, and importing the packages stays light."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_python_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "poisson.vtu").stat().st_size > 0
    kappa, u = names["kappa"], names["u"]
    assert ((kappa.grad + u.sum() / kappa).abs() / u.sum()).item() < 1e-10


@pytest.mark.parametrize(
    "names",
    [
        "import fem, nurbs, segmentation, solvers, splines",
        "from fem import Energy, FunctionSpace; from nurbs import Surface; from solvers import minimize",
        "from splines import PiecewisePolynomial, fit_piecewise",
    ],
)
def test_importing_loads_no_heavy_library(names: str) -> None:
    heavy = ("matplotlib", "meshio", "scipy", "lightning", "pyamg", "pypardiso")
    script = f"import sys; {names}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_exported_name_exists() -> None:
    import fem
    import nurbs
    import segmentation
    import solvers
    import splines

    for package in (fem, nurbs, segmentation, solvers, splines):
        assert set(package.__all__) <= set(dir(package))
        # Importing a module puts it in the place of a lazy name of its package.
        assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__)
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = package.nonsense


def test_the_clash_of_names_is_told() -> None:
    """PyPI has another package that imports as `splines`: whoever has both must know."""
    assert "[`splines`](https://pypi.org/project/splines/)" in (ROOT / "README.md").read_text()
    import splines

    assert Path(splines.__file__).parent == ROOT / "splines"
