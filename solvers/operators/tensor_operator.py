"""Hessians over splines of one patch without a matrix: products by sum factorisation, and fast diagonalisation.

With coefficients C_ij at quadrature points between the value and the reference derivatives, i, j = 0 … r,

    H v = Σ_ij T_iᵀ C_ij T_j v,    T_i = ⊗ of one small matrix per direction (`fem/space/factors.py`).

The preconditioner has the mean coefficients in the patch's parameters, and the 1-D stiffness and mass matrices K_k, M_k
of each direction, diagonalised together: L⁻¹ = (⊗ V) diag(Σ_k c_k κ_k + m)⁻¹ (⊗ V)ᵀ. How many iterations it takes
depends on the geometry, hardly on degree and spans. Source: G. Sangalli and M. Tani, Isogeometric preconditioners based
on fast solvers for the Sylvester equation, SIAM J. Sci. Comput. 38, 2016.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.assembly import pull_back, reference_slots
from fem.forms.discrete import DiscreteForm
from fem.reference.bspline import basis_matrix
from fem.reference.cells import interval
from fem.reference.quadrature import quadrature
from fem.space.factors import along, layers_of, slot_orders

if TYPE_CHECKING:
    from solvers.operators.system import System


def has_factors(form: DiscreteForm) -> bool:
    """Whether the Hessian is one of scalar splines on one patch, from integrals over its cells."""
    space: Any = form.space
    return (
        getattr(space, "factors", None) is not None
        and space.components is None
        and all(
            t.domain.facet is None and space.factors(t.domain, t.term.derivatives) is not None
            for t in form.integrals
            if t.term.tag is None
        )
    )


class TensorOperator:
    """The Hessian at a state: coefficients on the tensor grid of points, applied by sum factorisation."""

    def __init__(self, system: "System"):
        space: Any = system.form.space
        self.system, self.parts = system, []
        lead = len(system.batch)
        for t, entries in ((h.integral, h.coefficients) for h in system.hessians):
            if not entries:
                continue
            factors = space.factors(t.domain, t.term.derivatives)
            orders = slot_orders(t.domain.cell.dim, t.term.derivatives)
            found: dict[tuple[int, int], Tensor] = {}
            for c in entries:
                rows, columns, d = c.row[1], c.column[1], t.geometry.points.shape[-1]
                value = c.value.reshape(*c.value.shape[: lead + 2], d**rows, d**columns)
                value = value * t.geometry.weights[..., None, None]
                value = pull_back(value, columns, t.geometry, lead).mT
                value = pull_back(value, rows, t.geometry, lead).mT
                for a, i in enumerate(range(*reference_slots(rows, t.domain.cell.dim).indices(len(orders)))):
                    for b, j in enumerate(range(*reference_slots(columns, t.domain.cell.dim).indices(len(orders)))):
                        part = value[..., a, b]
                        if i <= j and bool((part != 0).any()):  # C is symmetric
                            part = factors.by_grid(part.expand(*part.shape[:-2], *t.geometry.points.shape[:2]))
                            found[i, j] = found[i, j] + part if (i, j) in found else part.contiguous()
            self.parts.append((t.domain, factors, orders, found))

    def __call__(self, v: Float[Tensor, "*b n"]) -> Tensor:
        total: Any = 0
        for _, factors, orders, found in self.parts:
            used = sorted({k for pair in found for k in pair})
            values = dict(zip(used, factors.values(v, [orders[j] for j in used]), strict=True))
            fluxes: dict[int, Tensor] = {}
            for pair, c in found.items():
                for i, j in {pair, pair[::-1]}:
                    fluxes[i] = torch.addcmul(fluxes[i], c, values[j]) if i in fluxes else c * values[j]
            total = total + factors.sums(list(fluxes.values()), [orders[i] for i in fluxes])
        return total

    def diagonal(self) -> Tensor:
        """Σ_ij C_ij T_i ∘ T_j summed over points."""
        total: Any = 0
        for _, factors, orders, found in self.parts:
            for (i, j), c in found.items():
                total = total + (1 if i == j else 2) * factors.pair_sums(c, orders[i], orders[j])
        return total

    def means(self) -> tuple[list[Float[Tensor, "*b"]], Float[Tensor, "*b"]]:
        """Mean coefficients of the derivatives in each parameter and of the value."""
        r = self.parts[0][0].cell.dim
        diffusion: list[Any] = [0.0] * r
        reaction: Any = 0.0
        element: Any = self.system.form.space.elements[0]  # type: ignore[union-attr]
        widths = [corners.diff() for corners in element.breakpoints]
        volume = 1.0
        for w in widths:
            volume = volume * w.sum()
        for domain, factors, _, found in self.parts:
            for k in range(r):
                c = found.get((1 + k, 1 + k))
                if c is not None:
                    width = widths[k] if k + 1 < r else widths[k][layers_of(element, domain.cells)]
                    square = width.repeat_interleave(len(factors.lines[k])) ** 2
                    square = square.view(*square.shape, *[1] * k)
                    diffusion[k] = diffusion[k] + (c * square).sum(tuple(range(-r, 0))) / volume
            if (0, 0) in found:
                reaction = reaction + found[0, 0].sum(tuple(range(-r, 0))) / volume
        like = self.system.u
        whole = lambda c: torch.as_tensor(c, dtype=like.dtype, device=like.device).expand(self.system.batch)  # noqa: E731
        return [whole(c) for c in diffusion], whole(reaction)


def line_matrices(knots: Tensor, degree: int) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """∫ N_a' N_b' du and ∫ N_a N_b du."""
    corners = knots[degree : len(knots) - degree].unique()
    rule = quadrature(interval, 2 * degree)
    x, w = rule.points[:, 0].to(knots), rule.weights.to(knots)
    u = torch.lerp(corners[:-1, None], corners[1:, None], x).flatten()
    weights = (corners.diff()[:, None] * w).flatten()
    value, slope = basis_matrix(knots, degree, u, 1)
    return slope.mT @ (weights[:, None] * slope), value.mT @ (weights[:, None] * value)


def diagonalized(system: "System", fixed: list[list[tuple[bool, bool]]]) -> Callable[[Tensor], Tensor]:
    """z = S L⁻¹ S r with S² = diag(L) / diag(H): the preconditioner on free dofs, zero elsewhere."""
    import scipy.linalg

    operator = system.tensor
    assert operator is not None
    element: Any = system.form.space.elements[0]  # type: ignore[union-attr]
    diffusion, reaction = operator.means()
    shape, r = element.dof_shape, len(element.knots)
    bases, values, free, diagonals = [], [], [], []
    for k, (t, p, (low, high)) in enumerate(zip(element.knots, element.degrees, fixed[0], strict=True)):
        K, M = line_matrices(t, p)
        inside = slice(int(low), shape[k] - int(high))
        kappa, V = scipy.linalg.eigh(K[inside, inside].cpu().double().numpy(), M[inside, inside].cpu().double().numpy())
        bases.append(torch.from_numpy(V).to(t))
        values.append(torch.from_numpy(kappa).to(t).clamp(min=0))
        diagonals.append((K.diagonal()[inside], M.diagonal()[inside]))
        free.append(inside)

    def outer(lines: list[Tensor]) -> Tensor:
        total = lines[0]
        for line in lines[1:]:
            total = line[..., None] * total[None] if total.ndim else line
        return total

    denominator: Any = 0
    scale: Any = 0
    for k in range(r):
        c = diffusion[k].reshape(*system.batch, *[1] * r)
        denominator = denominator + c * values[k].view(-1, *[1] * k)
        scale = scale + c * outer([diagonals[m][0 if m == k else 1] for m in range(r)])
    m = reaction.reshape(*system.batch, *[1] * r)
    denominator, scale = denominator + m, scale + m * outer([d[1] for d in diagonals])
    largest = denominator.amax(tuple(range(-r, 0)), keepdim=True)
    denominator = torch.where(denominator > 1e-14 * largest, denominator, largest)
    cut = (..., *free[::-1])
    H = system.diagonal.unflatten(-1, shape[::-1])[cut]
    S = (scale / torch.where(H == 0, 1, H)).abs().sqrt()

    def precondition(residual: Tensor) -> Tensor:
        x = S * residual.unflatten(-1, shape[::-1])[cut]
        for k, V in enumerate(bases):
            x = along(V.mT, x, -k - 1)
        x = x / denominator
        for k, V in enumerate(bases):
            x = along(V, x, -k - 1)
        result = residual.new_zeros(*residual.shape[:-1], *shape[::-1])
        result[cut] = S * x
        return result.flatten(-r)

    return precondition
