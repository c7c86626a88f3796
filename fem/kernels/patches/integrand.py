"""Integrals over patches of splines: a density's program with the geometry inside, point by point.

    ∫ ψ(x, u, ∇u) dx = Σ_e Σ_q w_q ψ(x, û, J⁻ᵀ ∇̂û) det J,     x = P̂ / ŵ,    J = (∇̂P̂ − x ∇̂ŵ) / ŵ

with the patch's homogeneous control points (P, w) as one more field: nothing is kept at points, and derivatives with
respect to the control points are those with respect to a field.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor

from fem.kernels.grid_inputs import Input
from fem.kernels.integrand import Integrand
from fem.kernels.patches.basis import PatchBasis, pair_order
from fem.kernels.patches.loop import PatchInputs, PatchLoop, Slope
from fem.kernels.patches.source import generated
from fem.kernels.program import Program
from fem.kernels.tracing import trace
from fem.mesh.geometry import Domain
from fem.mesh.jacobian import determinant, inverse


def on_patch(
    density: Callable[..., Tensor], order: int, gradients: Collection[int], rational: bool
) -> Callable[..., Tensor]:
    """w ψ(x, û, J⁻ᵀ ∇̂û, …) det J as a function of the patch's (P̂, ŵ) or x, û, ∇̂û (where ψ takes ∇u), the derivatives
    of the first, the weight w and the parameters; those at the positions in `gradients` are reference derivatives too.
    """

    def weighted(place: Tensor, value: Tensor, *rest: Any) -> Tensor:
        slopes, (moved, weight, *params) = rest[:order], rest[order:]
        x, jacobian = place, moved
        if rational:
            x = place[:-1] / place[-1]
            jacobian = (moved[:-1] - x[:, None] * moved[-1]) / place[-1]
        back, size = inverted(jacobian)
        pushed = lambda s: (s[..., None] * back).sum(-2)  # noqa: E731
        params = [pushed(p) if i in gradients else p for i, p in enumerate(params)]
        return weight * size * density(x, value, *map(pushed, slopes), *params)

    return weighted


def inverted(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """The (pseudo-)inverse of one Jacobian "d r" and its measure, in arithmetic that can be traced."""
    if jacobian.shape == (3, 3):
        a, b, c = jacobian.unbind(-1)
        rows = torch.stack([cross(b, c), cross(c, a), cross(a, b)])
        size = (a * rows[0]).sum()
        return rows / size, size
    square = jacobian.shape[0] == jacobian.shape[1]
    size = determinant(jacobian if square else jacobian.mT @ jacobian)
    return inverse(jacobian, size), size if square else size.sqrt()


def cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@dataclass(frozen=True, eq=False)
class PatchIntegrand(Integrand):
    """ψ in reference coordinates on the spans of a patch; `bases` are those of each family of fields."""

    domain: Domain = field(kw_only=True)
    bases: dict[Hashable, PatchBasis] = field(kw_only=True)

    @property
    def place(self) -> Hashable:
        return self.domain

    @property
    def dim(self) -> int:
        return self.domain.cell.dim

    def orders(self, order: int, entry: int) -> tuple[int, tuple[int, ...]]:
        """Component, and orders of derivative per direction, of an entry of a field's value or its derivative."""
        component, along = divmod(entry, self.dim**order)
        axes = [along // self.dim**k % self.dim for k in range(order)]
        return component, tuple(axes.count(axis) for axis in range(self.dim))

    def source(self, argument: int, entry: int) -> Slope:
        """Where an entry of an argument comes from."""
        for i, given in enumerate(self.inputs):
            for order, place in given.places:
                if place == argument:
                    return (i, *self.orders(order, entry))
        raise AssertionError("every argument of a program that matters belongs to an input")

    def slopes(self, wrt: Sequence[int]) -> list[Slope]:
        return [
            (i, *self.orders(order, k))
            for i in wrt
            for order, place in self.inputs[i].places
            for k in range(prod(self.arguments[place]))
        ]

    def made_loop(
        self, program: Program, slopes: Sequence[Slope], wrt: Sequence[int], scatters: tuple[str, ...]
    ) -> PatchLoop:
        sources = [self.source(*n) if used else None for n, used in zip(self.entries, program.used, strict=True)]
        widths = {name: basis.widths for name, basis in self.bases.items()}
        points = next(iter(self.bases.values())).num_points
        return PatchLoop(self.inputs, program, sources, slopes, wrt, scatters, self.dim, points, widths)

    @cached_property
    def structure(self) -> Hashable:
        """What loops depend on beside the density and its inputs."""
        return tuple((name, basis.widths, basis.num_points) for name, basis in self.bases.items())

    def loop(self, kind: str, wrt: Sequence[int], scatters: tuple[str, ...] = ()) -> PatchLoop:
        make = lambda: self.made_loop(self.program(kind, wrt), self.slopes(wrt), wrt, scatters)  # noqa: E731
        return self.kept((kind, tuple(wrt), scatters, self.structure), make)

    @cached_property
    def hessian_program(self) -> Program:
        """That of second derivatives times a direction, which is there already and depends on the same inputs."""
        return self.derivative((0,)).program("slope", (0,))

    def given(self, tensors: Sequence[Tensor]) -> PatchInputs:
        return PatchInputs(self.inputs, tensors, self.bases)

    def evaluate(
        self, tensors: Sequence[Tensor], wrt: Sequence[int] = (), value: bool = True, magnitude: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        data = self.given(tensors)
        scatters = (("plain", "size") if magnitude else ("plain",)) if wrt else ()
        loop = self.loop("gradient" if value else "slope", wrt, scatters)
        total, results = self.summed(loop, data)
        counts = [t.shape[t.ndim - i.rank] if i.rank else 0 for t, i in zip(tensors, self.inputs, strict=True)]
        found = [[data.shaped(i, r, counts[i]) for i, r in zip(wrt, kind, strict=True)] for kind in results]
        slopes, magnitudes, *_ = [*found, [], []]
        return total.reshape(data.batch), slopes, magnitudes

    def summed(self, loop: PatchLoop, data: PatchInputs) -> tuple[Tensor, list[list[Tensor]]]:
        """The sums over all points, by C code where there is some."""
        results = [[data.zeros(i) for i in loop.wrt] for _ in loop.scatters]
        code = generated(loop, data)
        total = None if code is None else code.run(data, results)
        return loop.run(data, results) if total is None else total, results

    # -- second derivatives --------------------------------------------------------------------------------------------

    def coefficients(self, tensors: Sequence[Tensor]) -> tuple[list[list[int | None]], Tensor]:
        """Second derivatives with respect to û and ∇̂û, times weights: which one each pair of entries has, and their
        values "b P i q k" by lines of spans."""
        data, wrt = self.given(tensors), (0,)
        outputs = self.program("hessian", wrt).outputs
        size = isqrt(len(outputs))
        upper = [[outputs[min(m, n) * size + max(m, n)] for n in range(size)] for m in range(size)]
        names = [o for o in dict.fromkeys(o for row in upper for o in row) if isinstance(o, str) or o != 0]
        numbers = [[names.index(o) if o in names else None for o in row] for row in upper]
        slopes = [(0, k, (0,) * self.dim) for k in range(len(names))]

        def make() -> PatchLoop:
            program = self.program("hessian", wrt)
            distinct = program.only([program.outputs.index(name) for name in names])
            return self.made_loop(distinct, slopes, wrt, ())

        loop = self.kept(("coefficients", self.structure), make)
        lines, spans, points = prod(data.spans[1:]), data.spans[0], prod(data.points)
        room = data.like.new_empty(data.size, lines, points, len(names), spans).permute(0, 1, 4, 2, 3)
        if names:
            code = generated(loop, data)
            if code is None or code.run(data, [[room]]) is None:
                loop.run(data, [[room]])
        return numbers, room


@dataclass(frozen=True, eq=False)
class QuadraticIntegrand(PatchIntegrand):
    """½ Σ_mn C_mn s_m s_n with s = (û, ∇̂û) and given coefficients: what conjugate gradients multiply with.

    Its inputs are the field and the different coefficients at points.
    """

    @classmethod
    def of(
        cls,
        space: Any,
        domain: Domain,
        bases: dict[Hashable, PatchBasis],
        basis: Hashable,
        order: int,
        pattern: Sequence[Sequence[int | None]],
        count: int,
    ) -> "QuadraticIntegrand":
        """Of coefficients by their numbers in the `pattern`; None is zero."""
        shape, dim = space.shape[1:], domain.cell.dim
        arguments = [(*shape, *[dim] * k) for k in range(order + 1)] + [(count,)]
        places = tuple((k, k) for k in range(order + 1))
        inputs = (Input("field", places, shape, basis=basis), Input("lines", ((0, order + 1),), (count,)))
        pairs = [(m, n, k) for m, row in enumerate(pattern) for n, k in enumerate(row) if k is not None]

        def form(*args: Tensor) -> Tensor:
            slots = torch.cat([a.reshape(-1) for a in args[:-1]])
            return 0.5 * torch.stack([args[-1][k] * slots[m] * slots[n] for m, n, k in pairs]).sum()

        key = "quadratic", order, tuple(pairs)
        return cls(space, None, key, form, tuple(arguments), inputs, domain=domain, bases=bases)  # type: ignore[arg-type]

    def times(self, v: Tensor, coefficients: Tensor) -> Tensor:
        """C's product with a field "b n *c", differentiated nowhere."""
        return self.evaluate([v, coefficients], (0,), value=False)[1][0]

    def diagonal(self, like: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_mn C_mn T_m T_n of each function with itself."""
        slots = [
            self.orders(order, k) for order, place in self.inputs[0].places for k in range(prod(self.arguments[place]))
        ]
        pairs = [(m, n, k) for m, n, k in self.key[2] if slots[m][0] == slots[n][0]]  # type: ignore[index]
        wrt, data = (0,), self.given([like, coefficients])

        def make() -> PatchLoop:
            builder = lambda *args: [args[-1][k].reshape(()) for _, _, k in pairs]  # noqa: E731
            program = trace(builder, list(self.arguments), self.space.dtype)
            slopes = [(0, slots[m][0], pair_order(slots[m][1], slots[n][1])) for m, n, _ in pairs]
            return self.made_loop(program, slopes, wrt, ("pairs",))

        loop = self.kept(("diagonal", self.structure), make)
        _, ((result,),) = self.summed(loop, data)
        return data.shaped(0, result, like.shape[like.ndim - self.inputs[0].rank])
