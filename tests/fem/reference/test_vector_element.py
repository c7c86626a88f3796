"""Raviart–Thomas and Nédélec elements: the checks and the table are in `tests/conformance.py`."""

import pytest
import torch

from fem import Nedelec, RaviartThomas
from fem.reference.cells import CELLS
from fem.reference.vector_element import VectorElement
from tests.conformance import VECTOR_CHECKS, VECTOR_ELEMENTS


@pytest.mark.parametrize("check", VECTOR_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("element", VECTOR_ELEMENTS, ids=lambda e: f"{e.derivative}-{e.cell.name}-{e.degree}")
def test_element_conforms(element: VectorElement, check) -> None:
    check(element)


@pytest.mark.parametrize("name", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_curls_of_nedelec_are_raviart_thomas_without_divergence(name: str) -> None:
    """curl N_k ⊂ RT_k in space; in the plane the rotated N_k is RT_k."""
    cell = CELLS[name]
    points = torch.rand(40, cell.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for degree in (1, 2):
        flux, field = RaviartThomas(degree).on(cell), Nedelec(degree).on(cell)
        table = field.tabulate(points)
        wanted = table.value[0].flip(-1) * torch.tensor([1.0, -1.0]) if cell.dim == 2 else table.derivative[0]
        basis = flux.tabulate(points, 0).value[0].movedim(1, -1).flatten(0, 1)
        wanted = wanted.movedim(1, -1).flatten(0, 1)
        assert (basis @ torch.linalg.lstsq(basis, wanted).solution - wanted).abs().max() < 1e-11


@pytest.mark.parametrize("family", [RaviartThomas, Nedelec])
@pytest.mark.parametrize("degree", [0, 3])
def test_degrees_out_of_range_are_named(family, degree) -> None:
    with pytest.raises(ValueError, match=f"1 or 2; got {degree}"):
        family(degree)


def test_cells_of_one_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="two or three dimensions; on cells of kind 'interval' take `Lagrange`"):
        RaviartThomas(1).on(CELLS["interval"])
