"""Raviart–Thomas and Nédélec elements of the first kind: vector fields, with moments on edges, faces and cells as dofs.

With P_k the polynomials of degree k, P̃_k the homogeneous ones among them, and Q of degrees in ξ_i and in the others,

    simplices                                              products of intervals, component i
    RT_k = P_{k−1}^d ⊕ ξ P̃_{k−1}                           Q_{k, k−1}
    N_k  = P_{k−1}^d ⊕ {p ∈ P̃_k^d : p·ξ = 0}               Q_{k−1, k}

A dof is a moment ℓ(v) = ∫_E v·t m, over a facet with t its normal and m scalar (RT), over an edge, face or cell with t
one of its axes (both). The basis is dual to them, ℓ_a(φ_b) = δ_ab, and stored as coefficients of monomials in 2ξ − 1.

Sources: Raviart and Thomas, A mixed finite element method for 2nd order elliptic problems (1977); Nédélec, Mixed finite
elements in ℝ³ (1980).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell, entity_cell
from fem.reference.lagrange import entity_cell_of, sub_entities
from fem.reference.quadrature import quadrature
from fem.support.checks import is_integer, refuse
from fem.support.transforms import outside_transforms

Powers = tuple[int, ...]


@dataclass(frozen=True)
class RaviartThomas:
    """Vector fields whose normal component is continuous: fluxes. Degree 1 is the lowest, one dof for each facet.

    Densities get u "… d" and its divergence "…" in place of the gradient.

    Raises:
        ValueError: the degree is not 1 or 2; cells of one dimension.
    """

    degree: int

    def __post_init__(self):
        check_degree("RaviartThomas", self.degree)

    def on(self, cell: Cell) -> "VectorElement":
        return vector_element(cell, int(self.degree), "div")


@dataclass(frozen=True)
class Nedelec:
    """Vector fields whose tangential components are continuous: electric fields. Degree 1 is the lowest, one dof for
    each edge.

    Densities get u "… d" and its curl in place of the gradient: "…" in two dimensions (∂u_y/∂x − ∂u_x/∂y), "… 3" in
    three.

    Raises:
        ValueError: the degree is not 1 or 2; cells of one dimension.
    """

    degree: int

    def __post_init__(self):
        check_degree("Nedelec", self.degree)

    def on(self, cell: Cell) -> "VectorElement":
        return vector_element(cell, int(self.degree), "curl")


def check_degree(call: str, degree: int) -> None:
    if not is_integer(degree, 1) or degree > 2:
        refuse(call, "degree", "1 or 2", degree)


@dataclass(frozen=True, eq=False)
class VectorTabulation:
    """Values of vector fields and their divergence or curl (None if not asked for) in reference coordinates."""

    value: Float[Tensor, "1 q a r"]
    derivative: Float[Tensor, "1 q a k"] | None = None


@dataclass(frozen=True)
class VectorElement:
    """RT (`derivative` "div") or Nédélec ("curl") functions of one degree on one reference cell.

    All polynomials of degree k − 1 are among them, and some of `degree` k.
    """

    cell: Cell
    degree: int
    derivative: str
    continuity = -1

    def tests(self, kind: Cell) -> list[tuple[Powers, int]]:
        """What the dofs on one kind of entity are tested with: a monomial m and the axis t that it belongs to."""
        m, k, facet = kind.dim, self.degree, self.cell.dim - 1
        if self.derivative == "div":
            if m <= facet:
                return [(p, 0) for p in exponents(kind, [k - 1] * m)] if m == facet else []
            own, others, total = k - 2, k - 1, k - 2
        else:
            own, others, total = k - 1, k - 2, k - m
        degrees = [[total if kind.is_simplex else own if i == j else others for j in range(m)] for i in range(m)]
        return [(p, i) for i in range(m) for p in exponents(kind, degrees[i])]

    @cached_property
    def entity_dofs(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Local dofs on each entity that has some, by its vertices: edges first, then faces, then the cell."""
        found, start = {}, 0
        for dim in range(1, self.cell.dim + 1):
            count = len(self.tests(entity_cell_of(self.cell, dim)))
            for vertices in sub_entities(self.cell, dim) if count else ():
                found[vertices] = tuple(range(start, start + count))
                start += count
        return found

    @cached_property
    def facet_dofs(self) -> tuple[tuple[int, ...], ...]:
        """Local dofs on each facet and its edges."""
        on = self.entity_dofs.items()
        return tuple(tuple(d for e, dofs in on if set(e) <= set(f) for d in dofs) for f in self.cell.facets)

    @property
    def num_basis(self) -> int:
        return sum(map(len, self.entity_dofs.values()))

    def moments(self, vertices: tuple[int, ...], degree: int) -> tuple[Float[Tensor, "q r"], Float[Tensor, "k q r"]]:
        """ℓ_k(v) = Σ_q weights[k, q]·v(points[q]) on an entity, whose vertices stand in the order that orients it.

        Args:
            degree: of polynomials v·m that are integrated exactly.
        """
        whole = len(vertices) == self.cell.num_vertices
        kind = self.cell if whole else entity_cell(len(vertices))
        rule, (origin, axes) = quadrature(kind, degree), self.cell.frame(vertices)
        points, tests = origin + rule.points @ axes, self.tests(kind)
        if self.derivative == "div" and not whole:
            axes = normal_of(axes)[None]
        table = monomials(rule.points, [powers for powers, _ in tests])
        return points, torch.einsum("qk,q,kr->kqr", table, rule.weights, axes[[axis for _, axis in tests]])

    @cached_property
    @outside_transforms()
    def coefficients(self) -> tuple[list[Powers], Float[Tensor, "a m r"]]:
        """φ_a = Σ_m c[a, m] (2ξ − 1)^powers[m], dual to the moments."""
        powers, spanning = polynomials(self.cell, self.degree, self.derivative)
        rows = []
        for vertices in self.entity_dofs:
            points, weights = self.moments(vertices, 2 * self.degree)
            rows.append(torch.einsum("kqr,qm,jmr->kj", weights, monomials(points, powers), spanning))
        return powers, torch.einsum("ja,jmr->amr", torch.linalg.inv(torch.cat(rows)), spanning)

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> VectorTabulation:
        """Basis functions, and for `derivatives=1` their divergence or curl; `dtype` and device follow the points."""
        powers, coefficients = self.coefficients
        coefficients = coefficients.to(points)
        value = torch.einsum("qm,amr->qar", monomials(points, powers), coefficients)[None]
        if not derivatives:
            return VectorTabulation(value)
        grad = torch.einsum("qms,amr->qars", monomial_gradients(points, powers), coefficients)
        return VectorTabulation(value, (divergence(grad) if self.derivative == "div" else curl(grad))[None])


@cache
def vector_element(cell: Cell, degree: int, derivative: str) -> VectorElement:
    """The shared element instance.

    Raises:
        ValueError: a cell of one dimension.
    """
    if cell.dim < 2:
        names = "`RaviartThomas` and `Nedelec` functions are vector fields in two or three dimensions"
        raise ValueError(f"{names}; on cells of kind {cell.name!r} take `Lagrange` or `Discontinuous`.")
    return VectorElement(cell, degree, derivative)


def polynomials(cell: Cell, degree: int, derivative: str) -> tuple[list[Powers], Float[Tensor, "a m r"]]:
    """Exponents m and coefficients of fields that span RT_k or N_k, linearly independent.

    In place of p with p·ξ = 0 stand the rotations of ξ in each plane times P̃_{k−1}; some are combinations of others.
    """
    d, k = cell.dim, degree
    step = torch.eye(d, dtype=torch.int64, device="cpu").tolist()
    up = lambda powers, i: tuple(p + s for p, s in zip(powers, step[i], strict=True))  # noqa: E731
    fields: list[dict[tuple[Powers, int], float]]
    if cell.is_simplex:
        fields = [{(p, i): 1.0} for i in range(d) for p in exponents(cell, [k - 1] * d)]
        for p in (p for p in exponents(cell, [k - 1] * d) if sum(p) == k - 1):
            if derivative == "div":
                fields.append({(up(p, i), i): 1.0 for i in range(d)})
            else:
                fields += [{(up(p, j), i): 1.0, (up(p, i), j): -1.0} for i in range(d) for j in range(i)]
    else:
        own, others = (k, k - 1) if derivative == "div" else (k - 1, k)
        degrees = [[own if i == j else others for j in range(d)] for i in range(d)]
        fields = [{(p, i): 1.0} for i in range(d) for p in exponents(cell, degrees[i])]
    powers = sorted({p for field in fields for p, _ in field})
    spanning = torch.zeros(len(fields), len(powers), d, dtype=torch.float64, device="cpu")
    for row, field in zip(spanning, fields, strict=True):
        for (p, i), value in field.items():
            row[powers.index(p), i] = value
    _, size, basis = torch.linalg.svd(spanning.flatten(1), full_matrices=False)
    return powers, basis[size > 1e-9 * size[0]].unflatten(1, (-1, d))


def exponents(cell: Cell, degrees: Sequence[int]) -> list[Powers]:
    """Of all monomials up to the degree (the same in each variable) on simplices, up to each one's on products."""
    every = product(*(range(n + 1) for n in degrees))
    return [powers for powers in every if not cell.is_simplex or sum(powers) <= degrees[0]]


def monomials(points: Float[Tensor, "q r"], powers: Sequence[Powers]) -> Float[Tensor, "q m"]:
    """Π_r (2ξ_r − 1)^powers[m][r]."""
    return one_variable(points, powers, 0).prod(-1)


def monomial_gradients(points: Float[Tensor, "q r"], powers: Sequence[Powers]) -> Float[Tensor, "q m r"]:
    """Derivatives of the monomials in each ξ_r."""
    value, slope = one_variable(points, powers, 0), one_variable(points, powers, 1)
    own = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    return torch.where(own, slope[..., None, :], value[..., None, :]).prod(-1)


def one_variable(points: Float[Tensor, "q r"], powers: Sequence[Powers], order: int) -> Float[Tensor, "q m r"]:
    """The factors (2ξ_r − 1)^p of the monomials, or their first derivatives."""
    p, x = torch.tensor(powers, device=points.device), (2 * points - 1)[:, None]
    return x**p if order == 0 else 2 * p * x ** (p - 1).clamp(min=0)


def normal_of(axes: Float[Tensor, "k r"]) -> Float[Tensor, "r"]:
    """The normal of a facet by the right-hand rule, as long as the facet's frame is large."""
    if len(axes) == 1:
        return torch.stack([axes[0, 1], -axes[0, 0]])
    return torch.linalg.cross(axes[0], axes[1])


def divergence(grad: Float[Tensor, "q a r r"]) -> Float[Tensor, "q a 1"]:
    """Σ_r ∂v_r/∂ξ_r from ∂v_r/∂ξ_s."""
    return grad.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)


def curl(grad: Float[Tensor, "q a r r"]) -> Float[Tensor, "q a k"]:
    """∂v_2/∂ξ_1 − ∂v_1/∂ξ_2 in two dimensions, ∇ × v in three, from ∂v_r/∂ξ_s."""
    pairs = ((1, 0),) if grad.shape[-1] == 2 else ((2, 1), (0, 2), (1, 0))
    return torch.stack([grad[..., r, s] - grad[..., s, r] for r, s in pairs], -1)
