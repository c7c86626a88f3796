"""Integrals over uniform grids without gather or scatter: strided images, a program for the density, chunk by chunk.

The density enters as a program of scalars (`fem.pointwise`), its arguments by sum factorisation (`fem.strided`): value
and gradient come from one sweep over chunks that stay in the caches, compiled where that pays. Derivatives of any order
are integrals of the same kind, since the derivative of J in a direction w is the integral of the directional derivative
of its density: autograd through them never meets a gather, a scatter or an array over quadrature points.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import ceil, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.fingerprint import cached
from fem.kernel import Kernel
from fem.pointwise import directional, hessian, trace, value_and_gradient
from fem.programs import Program, UntraceableError
from fem.strided import GridRule, Interpolation, add_types, grid_rule, node_types, scatter, split_types

CHUNK = 2**17  # cells of one sweep on a CPU, for double precision: temporaries stay in the caches
CHUNK_DEVICE = 2**24  # elsewhere: temporaries stay small beside the fields


@dataclass(frozen=True)
class Input:
    """One tensor that an integral depends on, and where its values and derivatives stand among the arguments.

    kind: "field" (dofs "*b n (c)" of a Lagrange space of this degree), "constant" ("*b *shape"), or "points"
    ("*b e q *shape", values at quadrature points). places: (order of derivative, position) pairs.
    """

    kind: str
    places: tuple[tuple[int, int], ...]
    shape: tuple[int, ...] = ()
    degree: int = 0

    @property
    def rank(self) -> int:
        """How many trailing axes are not batch."""
        return len(self.shape) + {"field": 1, "constant": 0, "points": 2}[self.kind]


@dataclass(frozen=True, eq=False)
class Integrand:
    """ψ(x, arguments) on the cells of a uniform grid; argument 0 is x.

    `arguments` gives each argument's shape at one point, or the number it is; `density` and `key` say what `function`
    was made of, for the cache of programs.
    """

    space: Any
    density: Callable[..., Any]
    key: Hashable
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    inputs: tuple[Input, ...]

    @cached_property
    def rule(self) -> GridRule:
        return grid_rule(self.space)

    def derivative(self, wrt: Sequence[int]) -> "Integrand":
        """The integrand of Σ ⟨∂J/∂input, w⟩ over the inputs in `wrt`: the directions w are its last inputs."""
        positions, directions = self.positions(wrt), []
        start = len(self.arguments)
        for i in wrt:
            places = tuple((order, start + k) for k, (order, _) in enumerate(self.inputs[i].places))
            directions.append(replace(self.inputs[i], places=places))
            start += len(places)
        return replace(
            self,
            key=(self.key, tuple(wrt)),
            function=directional(self.function, positions),
            arguments=(*self.arguments, *[self.arguments[p] for p in positions]),
            inputs=(*self.inputs, *directions),
        )

    def along_constant(self) -> "Integrand":
        """The derivative in the direction of a constant: its value and its slopes, exactly 0, are inputs by turns."""
        along, shape = self.derivative((0,)), self.inputs[0].shape
        slots = [
            Input("constant", ((0, place),), shape if order == 0 else (*shape, len(self.rule.cells)))
            for order, place in along.inputs[-1].places
        ]
        return replace(along, key=(along.key, "constant"), inputs=(*along.inputs[:-1], *slots))

    def positions(self, wrt: Sequence[int]) -> list[int]:
        return [position for i in wrt for _, position in self.inputs[i].places]

    def program(self, kind: str, wrt: Sequence[int]) -> Program:
        """ψ and its "gradient" with respect to some inputs, or its "hessian", as a program of the entries of arguments.

        Raises:
            UntraceableError: see `fem.pointwise.trace`.
        """
        free = [i for i, a in enumerate(self.arguments) if isinstance(a, tuple)]

        def at_point(*args: Tensor) -> Tensor:
            full = list(self.arguments)
            for i, a in zip(free, args, strict=True):
                full[i] = a
            return self.function(*full)

        def build() -> Program | str:
            wanted = [free.index(p) for p in self.positions(wrt)]
            both = value_and_gradient(at_point, wanted)
            make = {"gradient": both, "slope": lambda *a: both(*a)[1:], "hessian": hessian(at_point, wanted)}
            try:
                return trace(make[kind], [self.arguments[i] for i in free], self.space.dtype)
            except UntraceableError as error:
                return str(error)

        found = cached(self.density, self.key_of(kind, wrt), build)
        if isinstance(found, str):
            raise UntraceableError(found)
        return found

    def key_of(self, kind: str, wrt: Sequence[int]) -> tuple[Hashable, ...]:
        # Arguments by name, since 0 and −0 are equal and nan is not itself.
        return self.key, repr(self.arguments), self.inputs, kind, tuple(wrt), self.space.dtype

    def sweep(self, kind: str, wrt: Sequence[int], scatters: tuple[bool, ...] = ()) -> "Sweep":
        key = (*self.key_of(kind, wrt), scatters, self.rule.key)
        return cached(self.density, key, lambda: Sweep(self, self.program(kind, wrt), wrt, scatters))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(
        self, tensors: Sequence[Tensor], wrt: Sequence[int] = (), value: bool = True, magnitude: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """J "*b", its derivatives "*b …" item by item, and with `magnitude` the sums of their contributions by size."""
        layout = Layout(self, tensors)
        scatters = ((False, True) if magnitude else (False,)) if wrt else ()
        sweep = self.sweep("gradient" if value else "slope", wrt, scatters)
        total = layout.like.new_zeros(layout.size)
        results = [[layout.zeros(self.inputs[i]) for i in wrt] for _ in scatters]
        for chunk in layout.chunks():
            part, *derivatives = sweep.kernel(*layout.cut(chunk, sweep.coordinates))
            total[chunk[0]] += part
            parts = iter(derivatives)
            for kind in results:
                for i, result in zip(wrt, kind, strict=True):
                    for entry in range(prod(self.inputs[i].shape)):
                        count = self.inputs[i].degree ** len(layout.cells) if self.inputs[i].kind == "field" else 1
                        layout.add(self.inputs[i], result, chunk, entry, [next(parts) for _ in range(count)])
        found = [[layout.shaped(self.inputs[i], r) for i, r in zip(wrt, kind, strict=True)] for kind in results]
        slopes, magnitudes, *_ = [*found, [], []]
        return total.reshape(layout.batch), slopes, magnitudes

    def element_matrices(self, tensors: Sequence[Tensor]) -> "Iterator[tuple[Chunk, Tensor]]":
        """∂²J/∂U_A∂U_B of the first input, chunk by chunk: "k b nz ny nx" over pairs A ≤ B of local dofs.

        Local dofs are numbered with x fastest, components inmost; pairs as `torch.triu_indices` lists them.
        """
        layout = Layout(self, tensors)
        sweep = self.sweep("hessian", (0,))
        if not sweep.different:
            return  # J is linear
        table = sweep.products.to(layout.like)
        for chunk in layout.chunks():
            found = sweep.kernel(*layout.cut(chunk, sweep.coordinates))
            stacked = torch.stack(found)
            yield chunk, (table @ stacked.flatten(1)).unflatten(1, stacked.shape[1:])

    def constant_hessian(self, tensors: Sequence[Tensor]) -> Float[Tensor, "*b s s"]:
        """The second derivatives in the first input where no cell differs from another: u (its components), then ∇u."""
        layout, sweep = Layout(self, tensors), self.sweep("hessian", (0,))
        values = self.program("hessian", (0,)).run(*sweep.scalars((), [[], layout.constants, [], []]))
        found = [as_image(v, (layout.size,), layout.like) for v in flat_items(values)]
        size = round(len(found) ** 0.5)
        return torch.stack(found, -1).reshape((*layout.batch, size, size))

    @cached_property
    def hessian_program(self) -> Program:
        """The program of second derivatives in the first input, as it was when it was first asked for."""
        return self.program("hessian", (0,))

    @cached_property
    def hessian_inputs(self) -> set[int]:
        """The inputs that second derivatives in the first one depend on; −1 stands for x."""
        used, names = self.hessian_program.used, entries_of(self)
        owner = {place: i for i, given in enumerate(self.inputs) for _, place in given.places}
        return {owner.get(argument, -1) for (argument, _), matters in zip(names, used, strict=True) if matters}

    @property
    def quadratic(self) -> bool:
        """Whether J is quadratic in its first input."""
        return 0 not in self.hessian_inputs

    @property
    def uniform(self) -> bool:
        """Whether second derivatives are the same in all cells."""
        return all(i >= 0 and self.inputs[i].kind == "constant" for i in self.hessian_inputs)

    def same_hessian(self, mine: Sequence[Tensor], other: "Integrand", theirs: Sequence[Tensor]) -> bool:
        """Whether both have the same second derivatives: one program, and the same values of what it depends on."""
        if self.rule.key != other.rule.key or self.hessian_inputs != other.hessian_inputs:
            return False
        if self.hessian_program.signature != other.hessian_program.signature:
            return False
        pairs = [(self.inputs[i], other.inputs[i], mine[i], theirs[i]) for i in self.hessian_inputs if i >= 0]
        return all(a == b and (x is y or torch.equal(x, y)) for a, b, x, y in pairs)


Chunk = tuple[slice, slice]  # batch items, and layers of cells along the last axis of the grid (the first of an image)


def entries_of(integrand: Integrand) -> list[tuple[int, int]]:
    """(argument, entry) of every input of a program, in order."""
    return [(i, k) for i, a in enumerate(integrand.arguments) if isinstance(a, tuple) for k in range(prod(a))]


class Layout:
    """The tensors of an integral as images with one batch axis, cut into chunks."""

    def __init__(self, integrand: Integrand, tensors: Sequence[Tensor]):
        self.inputs, self.rule = integrand.inputs, integrand.rule
        self.cells = self.rule.cells[::-1]  # as the axes of an image
        batches = [t.shape[: t.ndim - i.rank] for t, i in zip(tensors, self.inputs, strict=True)]
        self.batch = tuple(torch.broadcast_shapes(*batches))
        self.size, self.like = prod(self.batch), tensors[0]
        self.fields: list[Tensor] = []
        self.constants: list[Tensor] = []
        self.points: list[Tensor] = []
        for tensor, given, own in zip(tensors, self.inputs, batches, strict=True):
            rest = tensor.shape[len(own) :]
            b = 1 if prod(own) == 1 else self.size
            flat = (tensor if prod(own) == 1 else tensor.expand(*self.batch, *rest)).reshape(b, *rest)
            if given.kind == "field":
                images = flat.reshape(b, *self.nodes(given.degree), prod(given.shape))
                self.fields += images.unbind(-1)
            elif given.kind == "constant":
                self.constants += flat.reshape(b, *[1] * len(self.cells), prod(given.shape)).unbind(-1)
            else:
                full = flat.expand(b, prod(self.cells), len(self.rule.weights), *given.shape)
                full = full.reshape(b, *self.cells, len(self.rule.weights), prod(given.shape))
                self.points.append(full.movedim(-1, 0).movedim(-1, 1))

    def nodes(self, degree: int) -> tuple[int, ...]:
        return tuple(degree * n + 1 for n in self.cells)

    def chunks(self) -> list[Chunk]:
        limit = CHUNK * 8 // self.like.element_size() if self.like.device.type == "cpu" else CHUNK_DEVICE
        items = even(self.size, max(limit // prod(self.cells), 1))
        layers = even(self.cells[0], max(limit // prod(self.cells[1:]), 1))
        return [(i, k) for i in items for k in layers]

    def cut(self, chunk: Chunk, coordinates: Sequence[tuple[int, int]]) -> tuple[list[Tensor], ...]:
        """Images, constants, values at points and coordinates of one chunk."""
        items, layers = chunk
        some = lambda t, axis: t if t.shape[axis] == 1 else t.narrow(axis, items.start, items.stop - items.start)  # noqa: E731
        degrees = [i.degree for i in self.inputs if i.kind == "field" for _ in range(prod(i.shape))]
        fields = [
            part
            for f, p in zip(self.fields, degrees, strict=True)
            for part in split_types(some(f, 0)[:, nodes(layers, p)], p, len(self.cells))
        ]
        constants = [some(c, 0) for c in self.constants]
        points = [some(p, 2)[:, :, :, layers] for p in self.points]
        last, lines = len(self.cells) - 1, []
        for axis, q in coordinates:
            line = self.rule.coordinates(axis, q, self.like)
            line = line[layers] if axis == last else line
            lines.append(line.reshape(-1, *[1] * axis))
        return fields, constants, points, lines

    def zeros(self, given: Input) -> Tensor:
        entries = prod(given.shape)
        if given.kind == "field":
            return self.like.new_zeros(entries, self.size, *self.nodes(given.degree))
        if given.kind == "constant":
            return self.like.new_zeros(entries, self.size)
        return self.like.new_zeros(entries, len(self.rule.weights), self.size, *self.cells)

    def add(self, given: Input, result: Tensor, chunk: Chunk, entry: int, parts: list[Tensor]) -> None:
        items, layers = chunk
        if given.kind == "field":
            add_types(result[entry, items, nodes(layers, given.degree)], parts, given.degree, len(self.cells))
        elif given.kind == "constant":
            result[entry, items] += parts[0]
        else:
            result[entry, :, items, layers] = parts[0]

    def shaped(self, given: Input, result: Tensor) -> Tensor:
        """A derivative as the input is shaped, with the full batch."""
        if given.kind == "field":
            flat = result.flatten(2).movedim(0, -1)
        elif given.kind == "constant":
            flat = result.movedim(0, -1)
        else:
            flat = result.flatten(3).permute(2, 3, 1, 0)
        return flat.reshape((*self.batch, *flat.shape[1:-1], *given.shape))


def nodes(layers: slice, degree: int) -> slice:
    """The nodes of some layers of cells."""
    return slice(degree * layers.start, degree * layers.stop + 1)


def even(count: int, size: int) -> list[slice]:
    """0, …, count − 1 in portions of nearly equal length, at most `size`."""
    parts = max(ceil(count / size), 1)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


class Sweep:
    """What is done with one chunk: interpolate, run the program at each quadrature point, scatter back.

    Gradients: the sums of ψ "b", then for each way of scattering (by value, by size), each input of `wrt` and each of
    its entries the derivative. Hessians: the distinct second derivatives at the points, to multiply with `products`.
    """

    def __init__(self, integrand: Integrand, program: Program, wrt: Sequence[int], scatters: tuple[bool, ...]):
        self.inputs, self.program, self.wrt, self.scatters = integrand.inputs, program, tuple(wrt), scatters
        self.rule, self.dim = integrand.rule, len(integrand.rule.cells)
        self.tables = {i.degree: self.rule.tables(i.degree) for i in self.inputs if i.kind == "field"}
        self.degrees = [i.degree for i in self.inputs if i.kind == "field" for _ in range(prod(i.shape))]
        names = entries_of(integrand)
        axes = sorted({k for (i, k), used in zip(names, program.used, strict=True) if i == 0 and used})
        self.coordinates = [(axis, q) for axis in axes for q in range(len(self.rule.points))]
        self.sources = [self.source(*name) if used else None for name, used in zip(names, program.used, strict=True)]
        self.kernel = Kernel(self.run if scatters or not wrt else self.second_derivatives)

    def source(self, argument: int, entry: int) -> tuple[Any, ...]:
        """Where an input of the program comes from: (kind, which list entry, which derivative or entry)."""
        if argument == 0:
            return "x", entry, None
        starts = {"field": 0, "constant": 0, "points": 0}
        for given in self.inputs:
            for order, place in given.places:
                if place == argument:
                    if given.kind == "points":
                        return "points", starts["points"], entry
                    component, axis = (entry // self.dim, entry % self.dim) if order else (entry, None)
                    return given.kind, starts[given.kind] + component, axis
            starts[given.kind] += 1 if given.kind == "points" else prod(given.shape)
        raise AssertionError("every argument of a program is x or belongs to an input")

    def scalars(self, q: tuple[int, ...], lists: Sequence[list[Any]]) -> list[Any]:
        """The program's inputs at quadrature point q of all cells."""
        fields, constants, points, coordinates = lists
        found: list[Any] = []
        for source in self.sources:
            match source:
                case ("x", axis, _):
                    found.append(coordinates[self.coordinates.index((axis, q[axis]))])
                case ("field", i, axis):
                    found.append(fields[i].at(q, axis))
                case ("constant", i, _):
                    found.append(constants[i])
                case ("points", i, entry):
                    found.append(points[i][entry, self.rule.order[q]])
                case _:
                    found.append(None)
        return found

    def run(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor], lines: list[Tensor]
    ) -> list[Tensor]:
        shape, like = self.chunk_shape(fields, constants, points)
        lists = [self.interpolations(fields), constants, points, lines]
        slots = [
            (i, order, k) for i in self.wrt for order, _ in self.inputs[i].places for k in self.entry_range(i, order)
        ]
        has_value = len(self.program.outputs) > len(slots)
        total: Any = None
        fluxes: dict[tuple[int, int], dict[Any, Tensor]] = {
            (i, c): {} for i in self.wrt for c in range(prod(self.inputs[i].shape))
        }
        for q, weight in self.rule.weights.items():
            outputs = self.program.run(*self.scalars(q, lists))
            if has_value:
                part = as_image(outputs[0], shape, like) * weight
                total = part if total is None else total + part
            for (i, order, k), output in zip(slots, outputs[int(has_value) :], strict=True):
                if isinstance(output, Tensor) or output != 0:
                    component, axis = (k // self.dim, k % self.dim) if order else (k, None)
                    fluxes[i, component][q, axis] = as_image(output, shape, like) * weight
        value = like.new_zeros(shape[0]) if total is None else total.flatten(1).sum(1)
        return [
            value,
            *[
                part
                for size in self.scatters
                for (i, _), f in fluxes.items()
                for part in self.spread(i, f, size, shape, like)
            ],
        ]

    def spread(
        self, i: int, fluxes: dict[Any, Tensor], size: bool, shape: tuple[int, ...], like: Tensor
    ) -> list[Tensor]:
        """A derivative with respect to one entry of an input from what multiplies its values and slopes at points."""
        given = self.inputs[i]
        if given.kind == "field":
            parts = scatter(fluxes, self.tables[given.degree], given.degree, size) if fluxes else {}
            return [
                parts[kind] if kind in parts else like.new_zeros(shape[0], *vertices_of(kind, shape[1:]))
                for kind in node_types(given.degree, self.dim)
            ]
        at_points = {self.rule.order[q]: f for (q, _), f in fluxes.items()}
        if given.kind == "points":
            zero = like.new_zeros(shape)
            return [torch.stack([at_points.get(k, zero) for k in range(len(self.rule.weights))])]
        total = like.new_zeros(shape[0])
        for flux in at_points.values():
            total = total + flux.flatten(1).sum(1)
        return [total]

    def second_derivatives(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor], lines: list[Tensor]
    ) -> list[Tensor]:
        shape, like = self.chunk_shape(fields, constants, points)
        lists = [self.interpolations(fields), constants, points, lines]
        first = {name: self.program.outputs.index(name) for name in self.different}
        found = []
        for q in self.rule.weights:
            outputs = self.program.run(*self.scalars(q, lists))
            found += [as_image(outputs[k], shape, like) for k in first.values()]
        return found

    @cached_property
    def different(self) -> list[Any]:
        """The second derivatives that differ from each other and from zero."""
        return [name for name in dict.fromkeys(self.program.outputs) if isinstance(name, str) or name != 0]

    @cached_property
    def products(self) -> Float[Tensor, "k m"]:
        """What each different second derivative at each point contributes to each entry A ≤ B of an element matrix."""
        given = self.inputs[0]
        tables, columns = self.tables[given.degree], []
        components = prod(given.shape)
        for q, weight in self.rule.weights.items():
            rows = []  # of each slot: how each local dof enters it
            for order, _ in given.places:
                for k in self.entry_range(0, order):
                    component, axis = (k // self.dim, k % self.dim) if order else (k, None)
                    local = torch.ones(1, dtype=torch.float64)
                    for d in range(self.dim):
                        line = torch.tensor(tables[d][d == axis][q[d]], dtype=torch.float64)
                        local = (line[:, None] * local).reshape(-1)
                    rows.append(local[:, None] * torch.eye(components, dtype=torch.float64)[component])
            slots = torch.stack(rows).flatten(1)
            for name in self.different:
                mask = torch.tensor([o is name or o == name for o in self.program.outputs], dtype=torch.float64)
                columns.append(weight * slots.T @ mask.reshape(len(slots), -1) @ slots)
        size = len(columns[0])
        i, j = torch.triu_indices(size, size)
        return torch.stack([c[i, j] for c in columns], -1)

    def entry_range(self, i: int, order: int) -> range:
        return range(prod(self.inputs[i].shape) * (self.dim if order else 1))

    def interpolations(self, fields: list[Tensor]) -> list[Interpolation]:
        parts = iter(fields)
        return [Interpolation([next(parts) for _ in node_types(p, self.dim)], self.tables[p], p) for p in self.degrees]

    def chunk_shape(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor]
    ) -> tuple[tuple[int, ...], Tensor]:
        """ "b nz ny nx" of the cells of a chunk, and a tensor of the right type."""
        b = max(t.shape[0] for t in [*fields, *constants, *[p[0, 0] for p in points]])
        return (b, *[n - 1 for n in fields[0].shape[1:]]), fields[0]  # the first type of nodes are vertices


def vertices_of(kind: tuple[int, ...], cells: Sequence[int]) -> list[int]:
    """How many nodes of a type there are along each axis."""
    return [n + (t == 0) for n, t in zip(cells, kind, strict=True)]


def flat_items(values: Sequence[Any]) -> list[Any]:
    """Constants "b 1 … 1" as "b"."""
    return [v.flatten() if isinstance(v, Tensor) else v for v in values]


def as_image(value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An output of a program as an image, whatever it depends on."""
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=like.dtype, device=like.device)
    return value if value.shape == shape else value.expand(shape)


# -- autograd --------------------------------------------------------------------------------------------------------


class Integral(torch.autograd.Function):
    """J "*b" of the tensors of an integrand: value and gradient in one sweep."""

    @staticmethod
    def forward(ctx: Any, integrand: Integrand, *tensors: Tensor) -> Tensor:
        ctx.integrand, ctx.wrt = integrand, [i for i, need in enumerate(ctx.needs_input_grad[1:]) if need]
        value, gradients, _ = integrand.evaluate(tensors, ctx.wrt)
        ctx.save_for_backward(*tensors, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.integrand.inputs)
        tensors, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():
            gradients = Slopes.apply(ctx.integrand, ctx.wrt, *tensors)
        found: list[Tensor | None] = [None] * count
        for i, g in zip(ctx.wrt, gradients, strict=True):
            scaled = grad.reshape((*grad.shape, *[1] * (g.ndim - grad.ndim))) * g
            found[i] = scaled.sum_to_size(tensors[i].shape)
        return None, *found


class Slopes(torch.autograd.Function):
    """∂J/∂tensors[i] "*b …" for i in `wrt`, item by item."""

    @staticmethod
    def forward(ctx: Any, integrand: Integrand, wrt: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.integrand, ctx.wrt = integrand, wrt
        ctx.save_for_backward(*tensors)
        return tuple(integrand.evaluate(tensors, wrt, value=False)[1])

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        tensors, inner = ctx.saved_tensors, ctx.integrand.derivative(ctx.wrt)
        needed = [i for i, need in enumerate(ctx.needs_input_grad[2:]) if need]
        if torch.is_grad_enabled():
            gradients = Slopes.apply(inner, needed, *tensors, *directions)
        else:
            gradients = inner.evaluate([*tensors, *directions], needed, value=False)[1]
        found: list[Tensor | None] = [None] * len(tensors)
        for i, g in zip(needed, gradients, strict=True):
            found[i] = g.sum_to_size(tensors[i].shape)
        return None, None, *found
