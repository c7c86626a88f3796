"""Integrals over the cells of any mesh: a density's program in reference coordinates, cell by cell.

    ∫ ψ(x, u, ∇u) dx = Σ_e Σ_q w ψ(x, û, J⁻ᵀ ∇̂û)

with x, J⁻¹ and the measure w of a point as further arguments of the program: derivatives with respect to them are those
with respect to the nodes of the mesh, and second derivatives in û and ∇̂û are pulled back already.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any

from jaxtyping import Int
from torch import Tensor

from fem.kernels.cells.inputs import CellInputs
from fem.kernels.cells.loop import CellLoop, CellRule
from fem.kernels.cells.source import generated
from fem.kernels.integrand import Integrand
from fem.kernels.polynomial_degree import polynomial_degrees
from fem.kernels.program import Program
from fem.mesh.geometry import Domain


def in_reference(density: Callable[..., Tensor], order: int, gradients: Collection[int]) -> Callable[..., Tensor]:
    """w ψ(x, û, J⁻ᵀ ∇̂û, …) as a function of x, û, ∇̂û (where ψ takes ∇u), J⁻¹, w and the parameters.

    Those at the positions in `gradients` are reference derivatives too.
    """

    def weighted(x: Tensor, value: Tensor, *rest: Any) -> Tensor:
        slopes, (inverse, weight, *params) = rest[:order], rest[order:]
        pushed = lambda s: (s[..., None] * inverse).sum(-2)  # noqa: E731
        params = [pushed(p) if i in gradients else p for i, p in enumerate(params)]
        return weight * density(x, value, *map(pushed, slopes), *params)

    return weighted


@dataclass(frozen=True, eq=False)
class CellIntegrand(Integrand):
    """ψ(x, arguments) in reference coordinates on the cells of a domain; `dofs` are those of each family of fields."""

    domain: Domain = field(kw_only=True)
    dofs: dict[Hashable, Int[Tensor, "e a"]] = field(kw_only=True)

    @property
    def rule(self) -> CellRule:
        if ("rule",) not in self.made:
            self.made["rule",] = CellRule.of(self.domain)
        return self.made["rule",]

    @property
    def place(self) -> Hashable:
        return self.domain

    def loop(self, kind: str, wrt: Sequence[int], scatters: tuple[bool, ...] = ()) -> CellLoop:
        rule = self.rule
        make = lambda: CellLoop(  # noqa: E731
            self.inputs, self.arguments, self.entries, rule, self.program(kind, wrt), wrt, scatters
        )
        return self.kept((kind, tuple(wrt), scatters, rule), make)

    @cached_property
    def hessian_program(self) -> Program:
        """That of second derivatives times a direction, which is there already and depends on the same inputs."""
        return self.derivative((0,)).program("slope", (0,))

    def evaluate(
        self, tensors: Sequence[Tensor], wrt: Sequence[int] = (), value: bool = True, magnitude: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        data = self.given(tensors)
        scatters = ((False, True) if magnitude else (False,)) if wrt else ()
        loop = self.loop("gradient" if value else "slope", wrt, scatters)
        results = [[data.zeros(i) for i in wrt] for _ in scatters]
        total = self.evaluate_natively(loop, data, results)
        if total is None:
            total = loop.run(data, [self.dofs[f] for f in loop.families], results)
        found = [[data.shaped(i, r) for i, r in zip(wrt, kind, strict=True)] for kind in results]
        slopes, magnitudes, *_ = [*found, [], []]
        return total.reshape(data.batch), slopes, magnitudes

    def with_cheapest_rule(self) -> "CellIntegrand":
        """The same with the rule of the fewest points that is exact, where ψ is known to be a polynomial on every cell.

        Then so are its derivatives, of the same degree.
        """
        if self.space.chosen_degree is not None or self.inputs[2].kind != "steady":
            return self
        given = {place: self.degree(i, order) for i, f in enumerate(self.inputs) for order, place in f.places}
        degrees = [given[argument] for argument, _ in self.entries]
        degree = polynomial_degrees(self.program("gradient", (0,)), degrees)[0]
        if degree >= self.space.quadrature_degree:
            return self
        domains = self.space.quadrature.domains(None, int(degree))
        return replace(self, domain=next(d for d in domains if d.block == self.domain.block), made={})

    def degree(self, i: int, order: int) -> float:
        """Of an input, or its derivative, as a polynomial on a cell with one Jacobian: x is linear, w constant.

        In each variable where cells are products: a derivative along one leaves the degree in the others.
        """
        if i in (1, 3):
            return 1 if i == 1 else 0
        if self.inputs[i].kind == "field":
            return max(self.inputs[i].degree - order * self.domain.cell.is_simplex, 0)
        return inf if self.inputs[i].kind == "points" else 0

    def given(self, tensors: Sequence[Tensor]) -> CellInputs:
        return CellInputs(self.inputs, tensors, len(next(iter(self.dofs.values()))), len(self.domain.weights))

    def evaluate_natively(self, loop: CellLoop, data: CellInputs, results: list[list[Tensor]]) -> Tensor | None:
        """The sums by compiled C code, where there is some; derivatives are added to `results`."""
        code = generated(loop, data)
        if code is None:
            return None
        pairs = [(self.inputs[i].kind, r) for found in results for i, r in zip(loop.wrt, found, strict=True)]
        sums = code.run(data, [self.dofs[f] for f in loop.families], [r for k, r in pairs if k != "constant"])
        if sums is None:
            return None
        first, *others = sums.to(data.like.dtype).unbind(-1)
        entries = [entry for k, r in pairs if k == "constant" for entry in r.unbind(-1)]
        for target, total in zip(entries, others, strict=True):
            target.copy_(total)
        return first

    def add_element_matrices(self, tensors: Sequence[Tensor], position: Int[Tensor, "e A A"], values: Tensor) -> bool:
        """∂²J/∂U_A∂U_B of the first input added to entries "b z" of a sparse matrix by C code, if there is some."""
        data, loop = self.given(tensors), self.loop("hessian", (0,))
        code = generated(loop, data)
        return code is not None and code.add_matrix(data, [self.dofs[f] for f in loop.families], position, values)
