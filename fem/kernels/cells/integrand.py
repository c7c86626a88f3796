"""Integrals over the cells of any mesh, or over facets: a density's program in reference coordinates, cell by cell.

    ∫ ψ(x, u, ∇u) dx = Σ_e Σ_q w ψ(x, û, J⁻ᵀ ∇̂û)

with x, J⁻¹ and the measure w of a point as further arguments of the program: derivatives with respect to them are those
with respect to the nodes of the mesh, and second derivatives in û and ∇̂û are pulled back already.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from jaxtyping import Int
from torch import Tensor

from fem.kernels.cells.inputs import CellInputs
from fem.kernels.cells.layout import layout_of
from fem.kernels.cells.loop import CellLoop, CellRule
from fem.kernels.cells.source import CellSource, generated
from fem.kernels.integrand import Integrand
from fem.kernels.polynomial_degree import polynomial_degrees
from fem.space.gather_scatter import GatherScatter

Pushed = Sequence[int | None]  # of each argument the side whose J⁻ᵀ makes a gradient of it, None for what is none


def in_reference(density: Callable[..., Tensor], own: Pushed, others: Pushed, sides: int = 1) -> Callable[..., Tensor]:
    """w ψ(x, û, J⁻ᵀ ∇̂û, …) as a function of x, û, ∇̂û (and what is like them), J⁻¹ of each side, w, and all others."""

    def weighted(x: Tensor, *rest: Any) -> Tensor:
        inverses, weight = rest[len(own) : len(own) + sides], rest[len(own) + sides]
        arguments = *rest[: len(own)], *rest[len(own) + sides + 1 :]
        pushed = [
            a if side is None else (a[..., None] * inverses[side]).sum(-2)
            for a, side in zip(arguments, (*own, *others), strict=True)
        ]
        return weight * density(x, *pushed)

    return weighted


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells, or facets with the cells at them, that one loop goes over: group after group, `counts` in each.

    `maps` are the dofs of each basis. `place` is what tells two of these apart. Where `geometry` is given, a family of
    functions of nodes, cells are images of the reference cell under it; `at_nodes()` gives its values and dofs, and the
    points that follow from them, unless the nodes need gradients. `with_degree` makes the same cells with a rule of
    another degree.
    """

    place: Any
    rule: CellRule
    counts: tuple[int, ...]
    maps: Mapping[Any, GatherScatter]
    geometry: Hashable = None
    at_nodes: Callable[[], tuple[Tensor, GatherScatter, Tensor] | None] = lambda: None
    with_degree: Callable[[int], "Cells"] | None = None


@dataclass(frozen=True, eq=False)
class CellIntegrand(Integrand):
    """ψ(x, arguments) in reference coordinates on some cells.

    After unknowns and tests come the inputs x, J⁻¹ and w, of facets with two sides x and both J⁻¹.
    """

    cells: Cells = field(kw_only=True)

    @property
    def place(self) -> Hashable:
        return self.cells.place

    @property
    def first(self) -> int:
        """The input that is x."""
        return len({*self.unknowns, *self.tests})

    def loop(
        self, kind: str, wrt: Sequence[int], scatters: tuple[bool, ...] = (), columns: Sequence[int] | None = None
    ) -> CellLoop:
        rule, geometry, x = self.cells.rule, self.cells.geometry, self.first
        make = lambda: CellLoop(  # noqa: E731
            *(self.inputs, self.arguments, self.entries, rule, self.program(kind, wrt), wrt, scatters, columns),
            *([] if geometry is None else [(x, x + 1, x + 2), geometry]),
        )
        return self.kept((kind, tuple(wrt), scatters, rule, geometry), make)

    @property
    def hessian_program(self) -> Any:
        """That of second derivatives times a direction, which is there already and depends on the same inputs."""
        return self.derivative(self.unknowns).program("slope", self.tests)

    def evaluate(
        self, tensors: Sequence[Tensor], wrt: Sequence[int] = (), value: bool = True, magnitude: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        data = self.given(tensors)
        scatters = ((False, True) if magnitude else (False,)) if wrt else ()
        loop = self.loop("gradient" if value else "slope", wrt, scatters)
        results = [[data.zeros(i) for i in wrt] for _ in scatters]
        total = self.evaluate_natively(loop, data, results)
        if total is None:
            maps = [self.cells.maps[f].dofs for f in loop.families]
            total = loop.run(data, self.cells.counts, maps, results)
        found = [[data.shaped(i, r) for i, r in zip(wrt, kind, strict=True)] for kind in results]
        slopes, magnitudes, *_ = [*found, [], []]
        return total.reshape(data.batch), slopes, magnitudes

    def with_cheapest_rule(self) -> "CellIntegrand":
        """The same with the rule of the fewest points that is exact, where ψ is known to be a polynomial on every cell.

        Then so are its derivatives, of the same degree. Values at the points of the default rule, used or not, keep it.
        """
        chosen, make = any(f.chosen_degree is not None for f in self.space.fields), self.cells.with_degree
        chosen = chosen or any(i.kind == "points" for i in self.inputs[self.first + 3 :])
        if make is None or chosen or self.inputs[self.first + 1].kind != "steady":
            return self
        given = {place: self.degree(i, order) for i, f in enumerate(self.inputs) for order, place in f.places}
        degrees = [given[argument] for argument, _ in self.entries]
        degree = polynomial_degrees(self.program("gradient", self.tests), degrees)[0]
        return self if degree >= self.space.quadrature_degree else replace(self, cells=make(int(degree)), made={})

    def degree(self, i: int, order: int) -> float:
        """Of an input, or its derivative, as a polynomial on a cell with one Jacobian: x is linear, w constant.

        In each variable where cells are products: a derivative along one leaves the degree in the others.
        """
        if i in (self.first, self.first + 2):
            return 1 if i == self.first else 0
        if self.inputs[i].kind == "field":
            return max(self.inputs[i].degree - order * self.cells.rule.cells[0].is_simplex, 0)
        return inf if self.inputs[i].kind == "points" else 0

    def given(self, tensors: Sequence[Tensor]) -> CellInputs:
        """The tensors as loops take them, with the nodes of the mesh where points and all come from these."""
        place = self.cells.at_nodes()
        nodes = place[0] if place is not None and tensors[self.first] is place[2] else None
        return CellInputs(self.inputs, tensors, sum(self.cells.counts), len(self.cells.rule.weights), nodes)

    def compiled(self, loop: CellLoop, data: CellInputs, position: Any = None) -> tuple[CellSource, Any, Any] | None:
        """The loop as C code with the layout of cells and the dofs of all its fields, if it is compiled (by now)."""
        code = generated(loop, data)
        if code is None or not (code.function() if position is None else code.function(position)).ready(
            code.work(data)
        ):
            return None
        maps = [self.cells.maps[f] for f in loop.families]
        layout = layout_of(maps[0], data.tensors[self.first][0, :, 0], self.cells.counts)
        if code.nodal and (place := self.cells.at_nodes()) is not None:
            maps.append(place[1])
        return None if layout is None else (code, layout, maps)

    def evaluate_natively(self, loop: CellLoop, data: CellInputs, results: list[list[Tensor]]) -> Tensor | None:
        """The sums by compiled C code, where there is some; derivatives are added to `results`."""
        compiled = self.compiled(loop, data)
        if compiled is None:
            return None
        code, layout, maps = compiled
        pairs = [(self.inputs[i].kind, r) for found in results for i, r in zip(loop.wrt, found, strict=True)]
        sums = code.run(data, layout, maps, [r for k, r in pairs if k != "constant"])
        first, *others = sums.to(data.like.dtype).unbind(-1)
        entries = [entry for k, r in pairs if k == "constant" for entry in r.unbind(-1)]
        for target, total in zip(entries, others, strict=True):
            target.copy_(total)
        return first

    def add_element_matrices(self, tensors: Sequence[Tensor], position: Int[Tensor, "e A A"], values: Tensor) -> bool:
        """∂²J/∂V_A∂U_B of tests and unknowns added to entries "b z" of a sparse matrix by C code, if there is some."""
        data, loop = self.given(tensors), self.loop("hessian", self.tests, (), self.unknowns)
        compiled = self.compiled(loop, data, position.dtype)
        if compiled is None:
            return False
        code, layout, maps = compiled
        code.add_matrix(data, layout, maps, position, values)
        return True
