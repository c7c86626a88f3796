"""C functions take what their code declares, and refuse anything else."""

import gc
import weakref

import pytest
import torch

from fem import compilation
from fem.support.c_function import CFunction, c_text
from fem.support.native import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
AXPY = """
/* y += a x, D times; returns how many threads there may be */
int run(int64_t n, double a, const T *x, T *restrict y, int64_t threads)
{
  for (int d = 0; d < D; d++)
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
  return (int)threads;
}
"""
SUMS = """
int run(int64_t count, const int64_t *at, const double *const *x, const uint8_t *mask, double *out, int64_t threads)
{
  for (int64_t i = 0; i < count; i++) out[i] = mask && !mask[i] ? 0 : x[i][at[i]];
  return x[0] == 0;
}
"""
F64 = torch.float64


@pytest.fixture(autouse=True)
def always():
    with compilation("always"):
        yield


def ready(text: str, **definitions) -> CFunction:
    made = CFunction(text, **definitions)
    assert made.ready(0)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_numbers_tensors_and_definitions(dtype: torch.dtype) -> None:
    x, y = torch.arange(4, dtype=dtype), torch.ones(4, dtype=dtype)
    assert ready(AXPY, T=dtype, D=3)(4, 0.5, x, y) == torch.get_num_threads()
    assert torch.equal(y, 1 + 1.5 * x)


def test_lists_of_numbers_and_of_tensors_and_null() -> None:
    code, x, out = ready(SUMS), torch.arange(10, dtype=F64), torch.zeros(2, dtype=F64)
    code(2, [1, 0], [x, x[3::2]], None, out)
    assert out.tolist() == [1, 3]
    code(2, torch.tensor([4, 1]), [x, x[2:]], torch.tensor([True, False]), out)
    assert out.tolist() == [4, 0]
    assert code(0, [], [], [1, 0], out) == 1  # the pointer of no tensor is NULL


def test_first_arguments_can_be_given_before() -> None:
    x, y = torch.arange(4, dtype=F64), torch.ones(4, dtype=F64)
    code = CFunction(AXPY, T=F64, D=1).bind(4, 2.0, x)
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is not None  # the code reads it
    assert code.ready(0)
    code(y)
    assert y.tolist() == [1, 3, 5, 7]
    with pytest.raises(TypeError, match="takes 1 more arguments; got 2"):
        code(y, y)


@pytest.mark.parametrize(
    "wrong", [torch.ones(4), torch.ones(8, dtype=F64)[::2], torch.ones(4, dtype=F64, device="meta")]
)
def test_tensors_of_another_type_or_layout(wrong: torch.Tensor) -> None:
    code = ready(AXPY, T=F64, D=1)
    with pytest.raises(
        TypeError, match=r"takes contiguous tensors of double on the CPU; got torch.float\d\d on .* \(4,\)"
    ):
        code(4, 0.5, wrong, torch.ones(4, dtype=F64))


def test_other_arguments_that_are_not_those_of_the_code() -> None:
    code, x = ready(AXPY, T=F64, D=1), torch.ones(4, dtype=F64)
    with pytest.raises(TypeError, match="takes 4 more arguments; got 3"):
        code(4, 0.5, x)
    with pytest.raises(TypeError, match="int"):
        code(4.5, 0.5, x, x)
    with pytest.raises(TypeError, match="takes tensors of double on the CPU"):
        ready(SUMS)(1, [0], [torch.ones(4)], None, x)
    with pytest.raises(ValueError, match="must define `int run"):
        CFunction("void other(void) {}")


def test_never_compiled() -> None:
    with compilation("never"):
        assert not CFunction(AXPY, T=F64, D=1).ready(10**12)


@pytest.mark.parametrize(
    ("package", "names", "definitions"),
    [
        ("solvers.operators", ["stencil_product.c"], {"T": torch.float32}),
        ("solvers.linear.grids", ["coarsening.c"], {"T": F64}),
        ("segmentation", ["labelling.c"], {"Pixel": torch.bool, "Label": torch.int32}),
        ("segmentation", ["averages.c"], {"Value": F64, "Label": torch.int64}),
        ("splines", ["costs.c", "exact.c"], {"D": 1}),
        ("splines", ["costs.c", "merging.c"], {"D": 0}),
        ("fem.kernels.cells", ["layout.c"], {}),
        # Nothing inserted, and nothing to add up: an empty loop.
        ("fem.kernels", ["grid_loop.c"], {"T": F64, "W": 64, "SUMS": 1, "HALOS": 0}),
    ],
)
def test_files_of_the_packages_compile(package: str, names: list[str], definitions: dict) -> None:
    text = c_text(package, *names).replace(" reduction(+ : /* insert reductions */)", "")
    assert CFunction(text, **definitions).ready(0)
