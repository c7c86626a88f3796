"""What every element must satisfy, wherever it is defined: the contract of `fem.reference.element`, executed.

To add an element, add a row to `ELEMENTS`: the tests in `tests/fem/reference/test_element.py` run every check below on
every row, and nothing else needs to change. A family for `FunctionSpace` on meshes also goes through
`assert_continuous`. Elements of vector fields have a table and checks of their own, `VECTOR_ELEMENTS`, and
`assert_traces_continuous`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from scipy.spatial import KDTree
from torch import Tensor

from fem import FunctionSpace
from fem.reference.bspline import uniform_knots
from fem.reference.cells import CELLS, Cell, hexahedron, quadrilateral, tetrahedron, triangle
from fem.reference.discontinuous import discontinuous_element
from fem.reference.lagrange import lagrange_element
from fem.reference.nodal import CrouzeixRaviart, Mini, Serendipity
from fem.reference.quadrature import quadrature
from fem.reference.spline_element import BSpline
from fem.reference.vector_element import VectorElement, vector_element
from fem.space.evaluation import values_in_cells
from fem.support.arithmetic import sum_of


@dataclass(frozen=True)
class Row:
    """One element: `nodal` if φ_a(node_b) = δ_ab, `denominator` the function "q r → e q" that its polynomials are
    divided by (rational elements reproduce constants and q/W for q up to `degree`, not polynomials themselves), `total`
    if its polynomials are those of a total degree on products of intervals too."""

    name: str
    element: Any
    nodal: bool = False
    total: bool = False
    denominator: Callable[[Tensor], Tensor] | None = None


def spline(dim: int, degree: int, rational: bool) -> Row:
    """Uneven knots, one of them double; another degree in the last direction of 3-D; weights between ½ and 2."""
    generator = torch.Generator().manual_seed(dim)
    first = uniform_knots(degree + 3, degree).clone()
    first[degree + 1 : degree + 3] = torch.tensor([0.3, 0.45 if degree == 1 else 0.3])
    knots = [first, uniform_knots(degree + 2, degree), uniform_knots(degree + 2, degree + 1)][:dim]
    degrees = (degree, degree, degree + 1)[:dim]
    plain = BSpline(knots, degrees)
    if not rational:
        return Row(f"BSpline-{dim}D-{degree}", plain)
    weights = 0.5 + 1.5 * torch.rand(plain.num_dofs, dtype=torch.float64, generator=generator)

    def denominator(points: Tensor) -> Tensor:
        return torch.einsum("eqa,ea->eq", plain.tabulate(points, 0).value, weights[plain.cell_dofs])

    return Row(f"NURBS-{dim}D-{degree}", BSpline(knots, degrees, weights), denominator=denominator)


ELEMENTS: tuple[Row, ...] = (
    *(Row(f"Lagrange-{c.name}-{p}", lagrange_element(c, p), nodal=True) for c in CELLS.values() for p in (1, 2, 3)),
    *(
        Row(f"Discontinuous-{c.name}-{p}", discontinuous_element(c, p), nodal=True)
        for c in CELLS.values()
        for p in (0, 1, 2, 3)
    ),
    *(Row(f"CrouzeixRaviart-{c.name}", CrouzeixRaviart().on(c), nodal=True) for c in (triangle, tetrahedron)),
    *(Row(f"Mini-{c.name}", Mini().on(c), nodal=True) for c in (triangle, tetrahedron)),
    *(Row(f"Serendipity-{c.name}", Serendipity(2).on(c), nodal=True, total=True) for c in (quadrilateral, hexahedron)),
    *(
        spline(dim, p, rational)
        for rational in (False, True)
        for dim in (1, 2, 3)
        for p in ((1, 2, 3) if dim < 3 else (2,))
    ),
)


VECTOR_ELEMENTS: tuple[VectorElement, ...] = tuple(
    vector_element(c, k, derivative)
    for c in CELLS.values()
    if c.dim > 1
    for derivative in ("div", "curl")
    for k in (1, 2)
)


# -- points and polynomials --------------------------------------------------------------------------------------------


def sample(cell: Cell) -> Tensor:
    """Points strictly inside a cell, enough of them to tell polynomials of degree 4 apart."""
    return quadrature(cell, 8).points


def monomials(cell: Cell, degree: int, total: bool = False) -> list[tuple[int, ...]]:
    """Exponents up to the total degree on simplices, up to the degree in each variable on products of intervals."""
    every = product(range(degree + 1), repeat=cell.dim)
    return [powers for powers in every if sum(powers) <= degree or not (total or cell.is_simplex)]


def parameters(element: Any, points: Tensor) -> Tensor:
    """Where reference points lie in the coordinates in which the element reproduces polynomials, "e q r"."""
    return element.parameters(points) if hasattr(element, "parameters") else points[None]


def global_values(element: Any, points: Tensor) -> Tensor:
    """Every function at the points of every cell, "(e q) n": polynomials must be reproduced by *one* set of dofs."""
    value = element.tabulate(points, 0).value
    dofs = getattr(element, "cell_dofs", torch.arange(value.shape[2])[None])
    full = torch.zeros(*value.shape[:2], int(dofs.max()) + 1, dtype=value.dtype)
    return full.scatter(2, dofs[:, None].expand_as(value), value).flatten(0, 1)


# -- the checks --------------------------------------------------------------------------------------------------------


def check_shapes_dtype_and_device(row: Row) -> None:
    """ "#e q a", "#e q a r", "#e q a r r", what was not asked for None, dtype and device of the points."""
    points = sample(row.element.cell)
    q, r = points.shape
    for order in (0, 1, 2):
        table = row.element.tabulate(points, order)
        e = table.value.shape[0]
        assert table.value.shape == (e, q, row.element.num_basis)
        assert e == getattr(row.element, "num_cells", 1)
        assert (table.grad is None) == (order < 1)
        assert (table.hess is None) == (order < 2)
        for k, part in enumerate(p for p in (table.value, table.grad, table.hess) if p is not None):
            assert part.shape == (e, q, row.element.num_basis, *[r] * k)
            assert part.dtype == points.dtype
            assert part.device == points.device
    if row.nodal:
        single = row.element.tabulate(points.float(), 2)
        assert single.value.dtype == single.grad.dtype == single.hess.dtype == torch.float32
        empty = row.element.tabulate(points[:0], 2)
        assert empty.hess.shape == (1, 0, row.element.num_basis, r, r)


def check_tabulate_is_pure(row: Row) -> None:
    """The same points give the same numbers, lower orders do not depend on higher ones, points come back untouched."""
    points = sample(row.element.cell)
    before = points.clone()
    first, second, value = (row.element.tabulate(points, k) for k in (2, 2, 0))
    assert torch.equal(points, before)
    assert torch.equal(first.hess, second.hess)
    assert torch.equal(first.value, value.value)


def check_nodality(row: Row) -> None:
    """φ_a(node_b) = δ_ab for nodal elements."""
    if row.nodal:
        value = row.element.tabulate(row.element.nodes, 0).value[0]
        torch.testing.assert_close(value, torch.eye(row.element.num_basis, dtype=value.dtype), rtol=0, atol=1e-14)


def check_partition_of_unity(row: Row) -> None:
    """Σ φ_a = 1, so Σ ∇φ_a = 0 and Σ ∇∇φ_a = 0."""
    table = row.element.tabulate(sample(row.element.cell), 2)
    torch.testing.assert_close(table.value.sum(2), torch.ones_like(table.value[:, :, 0]), rtol=0, atol=1e-13)
    for part in (table.grad, table.hess):
        scale = part.abs().max().clamp(min=1)
        torch.testing.assert_close(part.sum(2) / scale, torch.zeros_like(part[:, :, 0]), rtol=0, atol=1e-13)


def check_reproduction(row: Row) -> None:
    """One set of dofs gives each monomial up to `degree` (over W for rational elements) at all points of all cells."""
    element, points = row.element, sample(row.element.cell)
    basis, x = global_values(element, points), parameters(element, points)
    divide = torch.ones(x.shape[:2], dtype=x.dtype) if row.denominator is None else row.denominator(points)
    powers = torch.tensor(monomials(element.cell, element.degree, row.total))
    wanted = ((x[..., None, :] ** powers).prod(-1) / divide[..., None]).flatten(0, 1)
    dofs = torch.linalg.lstsq(basis, wanted).solution
    torch.testing.assert_close(basis @ dofs, wanted, rtol=0, atol=1e-12)


def check_reproduction_ends_at_degree(row: Row) -> None:
    """x^(p+1) is *not* in the span for the direction that `degree` speaks of: the degree is not understated."""
    element, points = row.element, sample(row.element.cell)
    basis, x = global_values(element, points), parameters(element, points)
    divide = 1 if row.denominator is None else row.denominator(points)
    wanted = (x[..., :1] ** (element.degree + 1)).squeeze(-1).div(divide).flatten()[:, None]
    residual = basis @ torch.linalg.lstsq(basis, wanted).solution - wanted
    assert residual.abs().max() > 1e-6


def check_functions_are_independent(row: Row) -> None:
    """No function on a cell is a combination of the others: the local table has full rank."""
    value = row.element.tabulate(sample(row.element.cell), 0).value
    assert (torch.linalg.matrix_rank(value) == row.element.num_basis).all()


def check_derivatives(row: Row) -> None:
    """Gradients and second derivatives are those of the values by automatic differentiation in the points."""
    points = sample(row.element.cell)[::5].clone().requires_grad_()
    table = row.element.tabulate(points, 2)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(table.value.shape[0], row.element.num_basis, dtype=points.dtype, generator=generator)
    total = torch.einsum("eqa,ea->q", table.value, weights)
    total = total + 0 * points.square().sum(-1)  # constant gradients of degree-1 elements stay in the graph
    (grad,) = torch.autograd.grad(total.sum(), points, create_graph=True)
    torch.testing.assert_close(torch.einsum("eqar,ea->qr", table.grad, weights), grad, rtol=1e-12, atol=1e-12)
    rows = [torch.autograd.grad(g.sum(), points, retain_graph=True)[0] for g in grad.unbind(-1)]
    hess = torch.einsum("eqars,ea->qrs", table.hess, weights)
    torch.testing.assert_close(hess, torch.stack(rows, -2), rtol=1e-11, atol=1e-11)


CHECKS: tuple[Callable[[Row], None], ...] = (
    check_shapes_dtype_and_device,
    check_tabulate_is_pure,
    check_nodality,
    check_partition_of_unity,
    check_reproduction,
    check_reproduction_ends_at_degree,
    check_functions_are_independent,
    check_derivatives,
)


# -- elements of vector fields -----------------------------------------------------------------------------------------

# Functions of degree k = 1 and 2, as counted by Raviart and Thomas, and Nédélec.
SIZES = {
    ("triangle", "div"): (3, 8),
    ("triangle", "curl"): (3, 8),
    ("quadrilateral", "div"): (4, 12),
    ("quadrilateral", "curl"): (4, 12),
    ("tetrahedron", "div"): (4, 15),
    ("tetrahedron", "curl"): (6, 20),
    ("hexahedron", "div"): (6, 36),
    ("hexahedron", "curl"): (12, 54),
}


def check_unisolvence(element: VectorElement) -> None:
    """There are as many functions as the space has dimensions, and ℓ_a(φ_b) = δ_ab."""
    assert element.num_basis == SIZES[element.cell.name, element.derivative][element.degree - 1]
    rows = []
    for entity, dofs in element.entity_dofs.items():
        points, weights = element.moments(entity, 2 * element.degree)
        rows.append(torch.einsum("kqr,qar->ka", weights, element.tabulate(points, 0).value[0]))
        assert len(rows[-1]) == len(dofs)
    identity = torch.eye(element.num_basis, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(rows), identity, rtol=0, atol=1e-13)


def check_vector_shapes(element: VectorElement) -> None:
    """ "1 q a r" and "1 q a k"; dtype follows the points."""
    points = sample(element.cell)
    q, r = points.shape
    table = element.tabulate(points)
    curls = 3 if (element.derivative, r) == ("curl", 3) else 1
    assert table.value.shape == (1, q, element.num_basis, r)
    assert table.derivative.shape == (1, q, element.num_basis, curls)
    assert element.tabulate(points, 0).derivative is None
    assert element.tabulate(points.float()).value.dtype == torch.float32


def check_vector_reproduction(element: VectorElement) -> None:
    """All vectors of polynomials of degree k − 1 are in the span, and x^k e_1 + … is not for every direction."""
    points = sample(element.cell)
    basis = element.tabulate(points, 0).value[0].movedim(1, -1).flatten(0, 1)  # "(q r) a"
    powers = torch.tensor(monomials(element.cell, element.degree))
    values = (points[:, None] ** powers).prod(-1)
    missing = 0
    for i, power in product(range(element.cell.dim), range(len(powers))):
        wanted = torch.zeros_like(points)
        wanted[:, i] = values[:, power]
        residual = basis @ torch.linalg.lstsq(basis, wanted.flatten()[:, None]).solution - wanted.flatten()[:, None]
        inside = powers[power].sum() if element.cell.is_simplex else powers[power].max()
        assert inside == element.degree or residual.abs().max() < 1e-12
        missing += int(residual.abs().max() > 1e-6)
    assert missing > 0


def check_vector_derivative(element: VectorElement) -> None:
    """Divergence and curl are those of the values by automatic differentiation in the points."""
    points = sample(element.cell)[::5].clone().requires_grad_()
    table = element.tabulate(points)
    weights = torch.rand(element.num_basis, dtype=points.dtype, generator=torch.Generator().manual_seed(0))
    field = torch.einsum("qar,a->qr", table.value[0], weights) + 0 * points.square().sum(-1, keepdim=True)
    rows = [torch.autograd.grad(f.sum(), points, retain_graph=True)[0] for f in field.unbind(-1)]
    if element.derivative == "div":
        wanted = sum_of(row[:, i] for i, row in enumerate(rows))[:, None]
    elif len(rows) == 2:
        wanted = (rows[1][:, 0] - rows[0][:, 1])[:, None]
    else:
        wanted = torch.stack([rows[i - 1][:, i - 2] - rows[i - 2][:, i - 1] for i in range(3)], 1)
    torch.testing.assert_close(torch.einsum("qak,a->qk", table.derivative[0], weights), wanted, rtol=1e-11, atol=1e-11)


def check_divergence_is_onto(element: VectorElement) -> None:
    """The divergences (in two dimensions the curls) span all polynomials of degree k − 1, and nothing else."""
    table = element.tabulate(sample(element.cell)).derivative[0]
    if table.shape[-1] == 1:
        assert torch.linalg.matrix_rank(table[..., 0], rtol=1e-10) == len(monomials(element.cell, element.degree - 1))


VECTOR_CHECKS: tuple[Callable[[VectorElement], None], ...] = (
    check_unisolvence,
    check_vector_shapes,
    check_vector_reproduction,
    check_vector_derivative,
    check_divergence_is_onto,
)


# -- across cells ------------------------------------------------------------------------------------------------------


def facet_lattice(cell: Cell, n: int = 4) -> Tensor:
    """A lattice on a facet that every symmetry of the facet maps to itself, edges and corners included."""
    lattice = list(product(range(n + 1), repeat=cell.dim))
    points = torch.tensor(lattice, dtype=torch.float64).reshape(len(lattice), cell.dim) / n
    return points[points.sum(1) < 1 + 1e-9] if cell.is_simplex else points


def traces(space: FunctionSpace, u: Tensor) -> tuple[Tensor, Tensor]:
    """Positions "m d" and values "m" on every facet of every cell, each cell speaking for itself."""
    positions, values = [], []
    for i, (block, element, dofs) in enumerate(zip(space.mesh.blocks, space.elements, space.cell_dofs, strict=True)):
        lattice = facet_lattice(block.cell.facet_cell)
        for facet in block.cell.facets:
            origin, tangents = block.cell.frame(facet)
            points = origin + lattice @ tangents
            positions.append(space.mesh.map(i, None, points)[0].flatten(0, 1))
            value = element.tabulate(points, 0).value.expand(len(dofs), -1, -1)
            values.append(torch.einsum("eqa,ea->eq", value, u[dofs]).flatten())
    return torch.cat(positions), torch.cat(values)


def assert_continuous(space: FunctionSpace) -> None:
    """A random function has one value wherever cells meet, whatever their order, numbering and orientation.

    Cells are matched by where they lie in space, without asking the mesh who its neighbours are.
    """
    u = torch.rand(space.num_nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, values = traces(space, u)
    pairs = torch.from_numpy(KDTree(x.detach().numpy()).query_pairs(1e-9, output_type="ndarray"))
    shared = int((space.mesh.topology.facets.num_cells == 2).sum())
    smallest = min(len(facet_lattice(block.cell.facet_cell)) for block in space.mesh.blocks)
    assert len(pairs) >= shared * smallest > 0
    jump = (values[pairs[:, 0]] - values[pairs[:, 1]]).abs().max()
    assert jump < 1e-12, f"{space}: a jump of {float(jump):.3g} between neighbours"


def assert_traces_continuous(space: FunctionSpace) -> None:
    """A random vector field has one normal (`RaviartThomas`) or tangential (`Nedelec`) trace wherever cells meet.

    Facets are matched by where their points lie in space, without asking the mesh who its neighbours are.
    """
    u = torch.rand(space.num_nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions, values = [], []
    for i, (block, element) in enumerate(zip(space.mesh.blocks, space.elements, strict=True)):
        assert isinstance(element, VectorElement)
        lattice = facet_lattice(block.cell.facet_cell)
        inside = (lattice > 0).all(1) & (lattice < 1).all(1)
        if block.cell.facet_cell.name == "triangle":
            inside &= lattice.sum(1) < 1 - 1e-9
        for facet, normal in zip(block.cell.facets, block.cell.facet_normals, strict=True):
            origin, tangents = block.cell.frame(facet)
            points = origin + lattice[inside] @ tangents
            x, jacobian, _ = space.mesh.map(i, None, points)
            n = torch.einsum("r,eqrd->eqd", normal, torch.linalg.inv(jacobian)).expand(x.shape)
            n = n / n.norm(dim=-1, keepdim=True)
            value = values_in_cells(space, u, i, None, points)
            along = (value * n).sum(-1, keepdim=True) * n
            positions.append(x.flatten(0, 1))
            values.append((along if element.derivative == "div" else value - along).flatten(0, 1))
    x, traces_ = torch.cat(positions), torch.cat(values)
    pairs = torch.from_numpy(KDTree(x.detach().numpy()).query_pairs(1e-9, output_type="ndarray"))
    shared = int((space.mesh.topology.facets.num_cells == 2).sum())
    assert len(pairs) >= shared > 0
    jump = (traces_[pairs[:, 0]] - traces_[pairs[:, 1]]).abs().max()
    assert jump < 1e-11 * traces_.abs().max(), f"{space}: a jump of {float(jump):.3g} between neighbours"
