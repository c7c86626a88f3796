"""Shape annotations are executed: every annotated call of the packages is checked (`tests/typechecker.py`).

Code compiled by tests goes into a folder of its own, so that what an earlier run left behind plays no part. All
processes of a run share it: what one has compiled is there for the others.
"""

import atexit
import os
import shutil
import tempfile

import pytest

import tests.typechecker

tests.typechecker.install(["fem", "nurbs", "segmentation", "solvers", "splines"])
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the folder of the process that started them
    os.environ["RITZ_CACHE"] = tempfile.mkdtemp(prefix="ritz-")
    atexit.register(shutil.rmtree, os.environ["RITZ_CACHE"], ignore_errors=True)


@pytest.fixture(params=["never", "always"])
def both_ways(request: pytest.FixtureRequest):
    """Everything in PyTorch, and all that can be compiled compiled."""
    from fem import compilation
    from fem.support.native import find_compiler

    if request.param == "always" and find_compiler() is None:
        pytest.skip("needs a C compiler")
    with compilation(request.param):
        yield
