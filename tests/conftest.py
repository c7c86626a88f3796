"""Shape annotations are executed: jaxtyping checks every annotated call of the packages through beartype.

Code compiled by tests goes into a folder of its own, so that what an earlier run left behind plays no part.
"""

import atexit
import os
import shutil
import tempfile

import pytest
from jaxtyping import install_import_hook

import tests.typechecker

install_import_hook(["fem", "nurbs", "segmentation", "solvers", "splines"], f"{tests.typechecker.__name__}.check")
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
