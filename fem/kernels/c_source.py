"""Loops over grids as C: for each row of cells one loop (`grid_loop.c`), whose body is all that happens in a cell.

Nodal values of a cell go through sum factorisation, the density's program and the transposed factorisation without
leaving registers and the nearest cache; the C compiler makes one loop over cells of them, several at a time. Numbers
(tables, weights, those of the density) are an argument, so that meshes and parameters share compiled code.

Work is cut along the slowest axis in portions that do not depend on the number of threads, and what two of them send to
the layer of nodes between them is added in a fixed order: results are the same for any number of threads.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import count, product
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from fem.kernels.c_operations import LoopBody, UnsupportedError, Value, inserted
from fem.kernels.grid_inputs import Chunk, GridInputs, nodes
from fem.kernels.grid_loop import GridLoop
from fem.kernels.tensor_interpolation import chain
from fem.support.c_function import CFunction, c_text
from fem.support.portions import NEAREST

PORTIONS = 32  # units of work, at least, if there are enough layers
Targets = tuple[tuple[int, tuple[int, ...]], ...]
STRIDES = 6  # of each tensor: batch, layer, line, cell, entry, point


class GeneratedLoop:
    """A loop over cells as C code.

    Args:
        targets: for each entry of element matrices the image of vertices that it is added to, and the corner of the
            cell that it belongs to (slowest axis first); without them second derivatives at points are written.

    Raises:
        UnsupportedError: an operation that C code is not written for, or too many of them.
    """

    def __init__(self, loop: GridLoop, dtype: torch.dtype, targets: Targets | None = None):
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedError
        self.targets = targets
        self.loop, self.dtype, self.dim = loop, dtype, loop.dim
        self.body, self.sums = LoopBody(dtype), ["total"]
        self.before: list[str] = []
        self.after: list[str] = []
        self.constants: list[str] = []
        self.halos: list[str] = []
        self.rows = 0  # of scratch
        self.outputs = count()
        self.known: dict[Any, Value] = {}
        self.inputs = self.input_numbers()
        self.write()

    def input_numbers(self) -> dict[tuple[str, int], int]:
        """The place of each tensor that the program uses among the arguments of the C function."""
        used = dict.fromkeys((s[0], s[1]) for s in self.loop.sources if s is not None and s[0] != "x")
        return {name: place for place, name in enumerate(used)}

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_inputs(self) -> None:
        for (kind, i), place in self.inputs.items():
            base = f"in[{place}] + b * at[{place * STRIDES}]"
            if kind == "constant":
                self.constants.append(f"const T c{i} = *({base});")
            elif kind == "points":
                a = place * STRIDES
                base += f" + l * at[{a + 1}] + m * at[{a + 2}] + start * at[{a + 3}]"
                self.before += [f"const T *p{i} = {base};", f"const int64_t p{i}x = at[{a + 3}];"]
            else:
                self.read_field(i, self.loop.degrees[i], base, place * STRIDES)
        used = {(s[1], q) for s in self.loop.sources if s and s[0] == "x" for q in range(len(self.loop.rule.points))}
        for axis, q in sorted(used):
            low, step, point = self.loop.rule.lower[axis], self.loop.rule.spacing[axis], self.loop.rule.points[q]
            low, step, point = (self.body.text(v) for v in (low, step, point))
            layer = axis == self.dim - 1
            if axis:
                cell = "(T)(l + first)" if layer else "(T)m"
                self.before.append(f"const T x{axis}_{q} = {low} + {step} * ({cell} + {point});")
            else:
                self.known["x", q] = self.body.let(f"{low} + {step} * (number[i] + {point})")
        if any(axis == 0 for axis, _ in used):
            shift = "first + start" if self.dim == 1 else "start"
            self.before.append("T number[W];")
            self.before.append(f"for (int64_t i = 0; i < n; i++) number[i] = (T)({shift} + i);")

    def read_field(self, i: int, degree: int, base: str, a: int) -> None:
        """Pointers to the rows of nodes of a row of cells; of degrees beyond 1 copies, type by type."""
        for row in product(range(degree + 1), repeat=self.dim - 1):
            layer, line = row_offsets(row, degree)
            pointer = f"{base} + {layer} * at[{a + 1}] + {line} * at[{a + 2}] + {degree} * start"
            name = "_".join(map(str, (f"f{i}", *row)))
            self.before.append(f"const T *restrict {name} = {pointer};")
            if degree > 1:
                self.rows += degree
                self.before.append(f"T {', '.join(f'{name}t{t}[W + 1]' for t in range(degree))};")
                copies = " ".join(f"{name}t{t}[i] = {name}[{degree} * i + {t}];" for t in range(degree))
                self.before.append(f"for (int64_t i = 0; i < n; i++) {{ {copies} }}")
                self.before.append(f"{name}t0[n] = {name}[{degree} * n];")

    def node(self, i: int, place: tuple[int, ...]) -> Value:
        """The value of field i at one node of the cell, slowest axis first."""
        degree, name = self.loop.degrees[i], "_".join(map(str, (f"f{i}", *place[:-1])))
        end, t = divmod(place[-1], degree)
        return self.body.let(f"{name}{f't{t}' if degree > 1 else ''}[i{' + 1' if end else ''}]")

    def at(self, i: int, rows: tuple[Any, ...], place: tuple[int, ...] = ()) -> Value:
        """Field i interpolated along the first axes, with these weights, at nodes along the others."""
        if (i, rows, place) not in self.known:
            if not rows:
                return self.node(i, place)
            terms = [(w, self.at(i, rows[:-1], (*place, a)) if w else 0.0) for a, w in enumerate(rows[-1])]
            self.known[i, rows, place] = self.body.combination(terms)
        return self.known[i, rows, place]

    def source(self, source: tuple[Any, ...] | None, q: tuple[int, ...]) -> Value | None:
        """An input of the program at quadrature point q."""
        match source:
            case ("x", 0, _):
                return self.known["x", q[0]]
            case ("x", axis, _):
                return f"x{axis}_{q[axis]}"
            case ("field", i, axis):
                return self.at(i, chain(self.loop.tables[self.loop.degrees[i]], q, axis))
            case ("constant", i, _):
                return f"c{i}"
            case ("points", i, entry):
                a = self.inputs["points", i] * STRIDES
                shift = f"{entry} * at[{a + 4}] + {self.loop.rule.order[q]} * at[{a + 5}]"
                return self.body.let(f"p{i}[i * p{i}x + {shift}]")
        return None

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        self.read_inputs()
        loop, body = self.loop, self.body
        if loop.wrt and not loop.scatters:
            self.write_second_derivatives()
            return
        slots = loop.slots
        has_value = len(loop.program.outputs) > len(slots)
        fluxes: dict[tuple[int, int], dict[Any, Value]] = {
            (i, c): {} for i in loop.wrt for c in range(prod(loop.inputs[i].shape))
        }
        for q, weight in loop.rule.weights.items():
            outputs = body.run(loop.program, [self.source(s, q) for s in loop.sources])
            if has_value and outputs[0] != 0:
                body.lines.append(f"total += {body.text(weight)} * {body.text(outputs[0])};")
            for (i, order, k), output in zip(slots, outputs[int(has_value) :], strict=True):
                if output != 0:
                    component, axis = (k // self.dim, k % self.dim) if order else (k, None)
                    fluxes[i, component][q, axis] = body.combination([(weight, output)])
        for size in loop.scatters:
            for (i, _), f in fluxes.items():
                if loop.inputs[i].kind == "field":
                    self.write_field(loop.inputs[i].degree, self.scattered(i, f, size))
                elif loop.inputs[i].kind == "constant":
                    self.sums.append(f"sum{len(self.sums)}")
                    parts = [self.sized(v, size) for v in f.values()]
                    body.lines.append(f"{self.sums[-1]} += {' + '.join(map(body.text, parts)) or '0'};")
                elif loop.inputs[i].kind == "cells":
                    parts = [(1.0, self.sized(v, size)) for v in f.values()]
                    self.write_image(next(self.outputs), body.combination(parts))
                else:
                    by_point = {loop.rule.order[q]: self.sized(v, size) for (q, _), v in f.items()}
                    for k in range(len(loop.rule.weights)):
                        self.write_image(next(self.outputs), by_point.get(k, 0.0))

    def write_second_derivatives(self) -> None:
        loop = self.loop
        first, found = [loop.program.outputs.index(name) for name in loop.different], []
        for q in loop.rule.weights:
            outputs = self.body.run(loop.program, [self.source(s, q) for s in loop.sources])
            found += [outputs[k] for k in first]
        if self.targets is None:
            for value in found:
                self.write_image(next(self.outputs), value)
            return
        parts: dict[int, dict[tuple[int, ...], Value]] = {}
        sums: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        for target, row in zip(self.targets, loop.products, strict=True):
            sums[target] = sums.get(target, 0) + row
        for (image, corner), row in sums.items():
            terms = list(zip(row.tolist(), found, strict=True))
            parts.setdefault(image, {})[corner] = self.body.combination(terms)
        for image in range(max(parts) + 1):
            self.write_field(1, parts.get(image, {}))

    def sized(self, value: Value, size: bool) -> Value:
        return self.body.call("fabs", self.body.text(value)) if size else value

    def scattered(self, i: int, fluxes: dict[Any, Value], size: bool) -> dict[tuple[int, ...], Value]:
        """What multiplies a field and its derivatives at all points, sent to the nodes of the cell."""
        tables = self.loop.tables[self.loop.inputs[i].degree]
        layer: dict[Any, list[tuple[float, Value]]] = {}
        for (q, axis), flux in fluxes.items():
            layer.setdefault((chain(tables, q, axis), ()), []).append((1.0, self.sized(flux, size)))
        for _ in tables:
            below: dict[Any, list[tuple[float, Value]]] = {}
            for (rows, place), terms in layer.items():
                total = self.body.combination(terms)
                for a, weight in enumerate(rows[-1]):
                    if weight:
                        term = (abs(weight) if size else weight, total)
                        below.setdefault((rows[:-1], (*place, a)), []).append(term)
            layer = below
        return {place: self.body.combination(terms) for (_, place), terms in layer.items()}

    def write_field(self, degree: int, parts: dict[tuple[int, ...], Value]) -> None:
        o = next(self.outputs)
        t = o * STRIDES
        for row in product(range(degree + 1), repeat=self.dim - 1):
            layer, line = row_offsets(row, degree)
            target = f"out[{o}] + b * to[{t}] + {layer} * to[{t + 1}] + {line} * to[{t + 2}]"
            if row and row[0] == degree:
                target = f"high < L && l + 1 == high ? halo[{o}] + unit * to[{t + 1}] + {line} * to[{t + 2}] : {target}"
            name = "_".join(map(str, (f"o{o}", *row)))
            values = [(a, parts[*row, a]) for a in range(degree + 1) if (*row, a) in parts]
            if values:
                self.after.append(f"T *{name} = ({target}) + {degree} * start;")
            for a, value in values:
                self.rows += 1
                self.before.append(f"T {name}a{a}[W];")
                self.body.lines.append(f"{name}a{a}[i] = {self.body.text(value)};")
                self.after.append(f"for (int64_t i = 0; i < n; i++) {name}[{degree} * i + {a}] += {name}a{a}[i];")
        if self.dim > 1:
            self.halos.append(
                f"for (int64_t i = 0; i < to[{t + 1}]; i++)"
                f" out[{o}][b * to[{t}] + {degree} * high * to[{t + 1}] + i] += halo[{o}][unit * to[{t + 1}] + i];"
            )

    def write_image(self, o: int, value: Value) -> None:
        t = o * STRIDES
        pointer = f"out[{o}] + b * to[{t}] + l * to[{t + 1}] + m * to[{t + 2}] + start"
        self.before.append(f"T *restrict w{o} = {pointer};")
        self.body.lines.append(f"w{o}[i] = {self.body.text(value)};")

    @cached_property
    def function(self) -> CFunction:
        sums = self.sums
        text = inserted(
            c_text("fem.kernels", "grid_loop.c"),
            functions=self.body.declarations,
            constants=self.constants,
            before=[*self.before, *[f"T {s} = 0;" for s in sums]],
            reductions=[", ".join(sums)],
            cell=self.body.lines,
            after=[*self.after, *[f"sums[{j}] += {s};" for j, s in enumerate(sums)]],
            halos=self.halos,
        )
        size = max(self.rows, 1) * self.dtype.itemsize
        width = min(max(NEAREST // size // 32 * 32, 32), 256)  # what one loop reads and writes stays in that cache
        return CFunction(text, True, T=self.dtype, W=width, SUMS=len(sums), HALOS=int(bool(self.halos)))

    @cached_property
    def numbers(self) -> Tensor:
        return self.body.constants

    @cached_property
    def work(self) -> int:
        """In a cell: a quarter of the numbers that programs read at its points, and the entries of its matrix."""
        read = len(self.loop.rule.weights) * sum(s is not None for s in self.loop.sources)
        return max(read // 4, 1) + len(self.targets or ())

    # -- calling ------------------------------------------------------------------------------------------------------

    def __call__(self, data: GridInputs, chunk: Chunk, outputs: Sequence[Tensor]) -> Tensor | None:
        """Add to images "b …" of nodes, or write images of cells, and give the sums "b j"; None if not compiled (yet).

        The first sum is that of ψ, the others are derivatives with respect to entries of constants.
        """
        items, layers = chunk
        size, length = items.stop - items.start, layers.stop - layers.start
        tensors = [self.input(data, chunk, *name) for name in self.inputs]
        if not self.function.ready(size * length * prod(data.cells[1:]) * self.work):
            return None
        layer, line, row = spatial((length, *data.cells[1:]), 1)
        portions = max(min(layer // 8, ceil(PORTIONS / size)), 1)
        sums = torch.empty(size, portions, len(self.sums), dtype=torch.float64, device="cpu")
        halos = [o.new_zeros(size, portions, *o.shape[2:]) if portions > 1 else o[:0] for o in outputs]
        at, to = ([s for t in some for s in strides(t, self.dim)] for some in (tensors, outputs))
        self.function(
            *(size, layer, line, row, portions, layers.start), tensors, at, outputs, to, halos, self.numbers, sums
        )
        return sums.sum(1)

    def input(self, data: GridInputs, chunk: Chunk, kind: str, i: int) -> Tensor:
        """One argument of the C function: "b …" of nodes, "b 1 … 1", or "entry point b …" of cells."""
        items, layers = chunk
        some = lambda t, axis: t if t.shape[axis] == 1 else t.narrow(axis, items.start, items.stop - items.start)  # noqa: E731
        if kind == "constant":
            return some(data.constants[i], 0)
        if kind == "points":
            return some(data.points[i], 2)[:, :, :, layers]
        image = some(data.fields[i], 0)[:, nodes(layers, self.loop.degrees[i])]
        return image if image.stride(-1) == 1 else image.contiguous()


def spatial(values: Sequence[int], missing: int) -> tuple[int, int, int]:
    """Numbers of an image's axes as those of layers, lines and cells."""
    if len(values) == 2:
        return values[0], missing, values[1]
    layer, line, cell = (*[missing] * (3 - len(values)), *values)
    return layer, line, cell


def strides(t: Tensor, dim: int) -> tuple[int, ...]:
    """Of batch items (0 for one for all), layers, lines, cells, entries and points."""
    *front, batch = range(t.ndim - dim)
    entry, point = (t.stride(a) for a in front) if front else (0, 0)
    return t.stride(batch) * (t.shape[batch] > 1), *spatial(t.stride()[batch + 1 :], 0), entry, point


def row_offsets(row: tuple[int, ...], degree: int) -> tuple[str, str]:
    """Layer and line of one of the rows of nodes that belong to a row of cells."""
    found = [f"({degree} * {cell} + {a})" for cell, a in zip("lm", row, strict=False)]
    return (*found, "0", "0")[:2]  # type: ignore[return-value]


def generated(loop: GridLoop, data: GridInputs, targets: Targets | None = None) -> GeneratedLoop | None:
    """The loop as C code, if C has what it takes and the tensors are the CPU's."""
    tensors = [*data.fields, *data.constants, *data.points]
    if any(t.device.type != "cpu" or t.dtype != data.like.dtype for t in tensors):
        return None
    key = data.like.dtype, targets
    if key not in loop.generated:
        try:
            loop.generated[key] = GeneratedLoop(loop, *key)
        except UnsupportedError:
            loop.generated[key] = None
    return loop.generated[key]
