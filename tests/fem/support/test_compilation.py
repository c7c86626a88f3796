"""Kernels are compiled when they should be, give the same compiled, and go on without a compiler."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fem.forms.traced.loops
import fem.kernels.grid_integrand
import fem.support.compilation
from fem import Energy, FunctionSpace, Lagrange, box
from fem.forms.grid_integral import GridIntegral
from fem.support.compilation import Kernel, compilation, current, fresh

COMPILE, ROOT = torch.compile, Path(__file__).parents[3]


class Compiler:
    """Stands for `torch.compile`: counts, and fails where told to."""

    def __init__(self, error: Exception | None = None):
        self.calls, self.runs, self.error = 0, 0, error

    def __call__(self, function, **options):
        self.calls += 1

        def compiled(*lists):
            if self.error is not None:
                raise self.error
            self.runs += 1
            return function(*lists)

        return compiled


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    fem.support.compilation._missing.clear()
    yield made
    fem.support.compilation._missing.clear()


def double(tensors: list[Tensor]) -> list[Tensor]:
    return [2 * t for t in tensors]


def test_policies(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.compilation, "WORTH", 25)
    kernel, x = Kernel(double), torch.ones(10)
    with compilation("never"):
        for _ in range(5):
            kernel([x])
    assert compiler.calls == 0
    assert [int(torch.equal(kernel([x])[0], 2 * x)) * compiler.runs for _ in range(4)] == [0, 0, 1, 2]
    kernel([torch.ones(5)])  # another shape counts for itself
    assert compiler.calls == 1
    with compilation("always"):
        Kernel(double)([x])
        with compilation("auto"):
            Kernel(double)([x])
    assert (compiler.calls, compiler.runs) == (2, 3)


def test_the_policy_before_comes_back(compiler: Compiler) -> None:
    with pytest.raises(RuntimeError), compilation("always"):
        raise RuntimeError
    Kernel(double)([torch.ones(1)])
    assert compiler.calls == 0
    with (
        pytest.raises(ValueError, match=r'takes "always", "auto" or "never"; got \'sometimes\''),
        compilation("sometimes"),
    ):
        pass


def test_contexts_may_end_in_another_order_than_they_began() -> None:
    """As they do where two threads open one each: the last one that is open counts."""
    first, second = compilation("never"), compilation("always")
    before = current.when
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current.when == "always"
    second.__exit__(None, None, None)
    assert current.when == before


def test_without_a_compiler_there_is_one_warning(compiler: Compiler) -> None:
    compiler.error = RuntimeError("InvalidCxxCompiler: No working C++ compiler found in (None, 'g++')")
    x = torch.ones(3)
    with compilation("always"):
        with pytest.warns(UserWarning, match=r"no working C\+\+ compiler was found. Install g\+\+ or clang"):
            assert torch.equal(Kernel(double)([x])[0], 2 * x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(Kernel(double)([x])[0], 2 * x)
    assert compiler.calls == 1


def test_what_cannot_be_compiled_stays_as_it_is(compiler: Compiler) -> None:
    compiler.error = RuntimeError("BackendCompilerFailed: something\nand its whole story")
    kernel, x = Kernel(double), torch.ones(3)
    with compilation("always"):
        with pytest.warns(UserWarning, match="a kernel stays uncompiled and slower.*something$"):
            assert torch.equal(kernel([x])[0], 2 * x)
        assert torch.equal(kernel([x])[0], 2 * x)
        compiler.error = None
        Kernel(double)([x])
    assert (compiler.calls, compiler.runs) == (2, 1)


def test_mistakes_are_raised_as_they_are(compiler: Compiler) -> None:
    def wrong(tensors):
        raise KeyError("a mistake of the kernel")

    compiler.error = RuntimeError("torch.compile's view of it")
    with compilation("always"), pytest.raises(KeyError, match="a mistake of the kernel"):
        Kernel(wrong)([torch.ones(1)])


def test_code_of_its_own() -> None:
    def function(a, b=2, *, c=3):
        return a, b, c, double

    class Owner:
        def method(self, a):
            return self, a

    copy, owner = fresh(function), Owner()
    assert copy(1) == function(1)
    assert copy.__code__ is not function.__code__
    assert fresh(owner.method)(1) == (owner, 1)
    assert fresh(abs) is abs


def test_more_kernels_and_shapes_than_pytorch_compiles_of_one_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend="eager"))

    class Scaled:
        def __init__(self, factor):
            self.factor = factor

        def run(self, tensors):
            return [self.factor * t for t in tensors]

    with compilation("always"):
        for i in range(12):
            assert Kernel(Scaled(float(i)).run)([torch.ones(2)])[0][0] == i
        kernel = Kernel(Scaled(3.0).run)
        for n in range(2, 14):
            assert kernel([torch.ones(n)])[0].sum() == 3 * n
    assert [s.run is not None for s in kernel.shapes._kept.values()] == [True] * 12
    assert not kernel.broken


def nonlinear(x, u, g, k):
    return k * (g.square().sum(-1) + 0.1) ** 1.5 + torch.where(u > 0.5, u**2, u.exp()) * x[..., 0]


def compare(degree: int, **options) -> None:
    """All derivatives of one energy, compiled and not."""
    fem.forms.traced.loops.GRID_CELLS = 1
    fem.kernels.grid_integrand.generated = lambda *_: None  # as on a GPU
    torch.compile = partial(COMPILE, **options)
    warnings.filterwarnings("error", message="a kernel stays uncompiled|kernels stay uncompiled")
    V = FunctionSpace(box((0.0, 0.0), (1.0, 2.0), (3, 4)), Lagrange(degree))
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.rand(2, *V.shape, dtype=torch.float64, generator=generator) for _ in range(2))
    Q = FunctionSpace(V.mesh, Lagrange(1))
    k = Q.function(torch.rand(Q.shape, dtype=torch.float64, generator=generator))
    form, found = Energy(V, nonlinear).discrete_form((k,)), []
    (integral,) = form.integrals
    assert isinstance(integral, GridIntegral)
    for when in ("never", "always"):
        with compilation(when), torch.no_grad():
            state = form.evaluate(u)
            found.append([state.value, state.residual, state.magnitude, form.hessian_product(u, v)])
            found[-1] += [m for _, m in integral.integrand.element_matrices([u, *integral.tensors()])]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def run_alone(call: str) -> None:
    """In a process where annotations are not executed, since code that checks them cannot be compiled."""
    code = f"from tests.fem.support.test_compilation import compare; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("degree", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kernels_can_be_compiled(degree: int) -> None:
    """As one graph, without code being generated from it."""
    run_alone(f"compare({degree}, backend='eager')")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("degree", [1, 2])
def test_compiled_kernels_give_the_same(degree: int) -> None:
    run_alone(f"compare({degree})")
