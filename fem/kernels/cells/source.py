"""Loops over the cells of any mesh as C (`cell_loop.c`): what happens in a cell, and at each of its points.

Nodal values of a block of cells are gathered, interpolated with the table of the point, put through the density's
program, and what comes out is sent back to the nodes, with one cell in each lane of a vector. Slots that do not vary
within a cell (gradients of linear functions on simplices) are interpolated once, and what multiplies them is summed
over the points before it is sent back. Points, inverse Jacobians and measures come from the nodes of the mesh where
those are given, which are far less to read. Tables and numbers are arguments, so that meshes, parameters and rules
share compiled code; loops over local basis functions stay loops, so that it is short whatever the degree.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import count
from math import prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fem.kernels.c_operations import LoopBody, UnsupportedError, Value, inserted
from fem.kernels.cells.inputs import CellInputs
from fem.kernels.cells.jacobians import inverse_jacobians
from fem.kernels.cells.layout import Layout, block_size
from fem.kernels.cells.loop import CellLoop
from fem.kernels.cells.matrices import LARGEST, write_matrix
from fem.space.gather_scatter import GatherScatter
from fem.support.c_function import CFunction, c_text
from fem.support.portions import CACHE, NEAREST
from fem.support.threads import num_threads

STRIDES = 3  # of each input: batch, cell, point
VECTOR = 64  # bytes
THREADED = 2**24  # bytes that wait where several threads take part

Slot = tuple[int, str]  # of a table, and the array of its values


class CellSource:
    """A `CellLoop` as C code.

    Raises:
        UnsupportedError: an operation that C code is not written for, or element matrices too large for the caches.
    """

    def __init__(self, loop: CellLoop, dtype: torch.dtype, nodal: bool):
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedError
        self.loop, self.dtype, self.point = loop, dtype, LoopBody(dtype)
        self.lanes = VECTOR // dtype.itemsize
        self.nodal = nodal and not set(loop.place) & set(loop.wrt)
        tables = [*loop.tables, *([loop.geometry] if self.nodal else [])]
        # As numbers that compare quickly: which slots are the same at all points, and how many functions there are.
        self.steady = [[bool(s) for s in (t == t[:, :1]).all(-1).all(1).all(0)] for t in tables]
        self.sizes = [table.shape[-1] for table in tables]
        self.room, self.block, self.before = list[str](), list[str](), list[str]()
        self.head, self.interpolation = list[str](), list[str]()
        self.spread, self.end, self.after, self.scatter = list[str](), list[str](), list[str](), list[str]()
        self.sums, self.outputs = ["total"], count()
        self.rows = 0  # of all arrays together
        self.parts: list[tuple[int | None, int]] = []  # what waits: numbers of each node of a map, or of each cell
        self.functions: dict[torch.dtype, CFunction] = {}
        self.read_inputs()
        sources = [None if s is None else self.source(*s) for s in loop.sources]
        outputs = self.point.run(loop.program, sources)
        if loop.columns is None:
            self.write_gradient(outputs)
        else:
            write_matrix(self, outputs)

    def array(self, name: str, rows: int = 1, zero: bool = False) -> str:
        """One more array over the cells that one loop takes."""
        self.rows += rows
        self.before.append(f"T {name}[{rows}][W] ARRAY{' = {{0}}' if zero else ''};")
        return name

    # -- reading -------------------------------------------------------------------------------------------------------

    def read_inputs(self) -> None:
        used = dict.fromkeys(s for s in self.loop.sources if s is not None)
        for i in sorted({s[0] for s in used}):
            kind, at = self.loop.inputs[i].kind, [f"at[{i * STRIDES + k}]" for k in range(STRIDES)]
            base = f"in[{i}] + b * {at[0]}"
            if self.nodal and i in self.loop.place:
                continue
            if kind == "field":
                self.read_field(
                    str(i),
                    base,
                    self.loop.basis(i),
                    prod(self.loop.inputs[i].shape),
                    [s[1:] for s in used if s[0] == i],
                )
            elif kind == "constant":
                self.before.append(f"const T *p{i} = {base};")
            else:
                self.before.append(f"const T *p{i} = {base};")
                self.before.append(f"const int64_t e{i} = {at[1]}, q{i} = {at[2]};")
        if self.nodal:
            self.read_place({self.loop.place.index(s[0]) for s in used if s[0] in self.loop.place}, used)

    def read_place(self, kinds: set[int], used: Any) -> None:
        """Points (0), and inverse Jacobians and measures (1, 2) from the nodes of the mesh."""
        t, d = len(self.sizes) - 1, self.loop.dim
        slots = [s[1:] for s in used if s[0] == self.loop.place[0]]
        if kinds & {1, 2}:
            slots += [(c, 1 + r) for c in range(d) for r in range(d)]
        if slots:
            self.read_field("x", f"in[{len(self.loop.inputs)}]", t, d, slots)
        if kinds & {1, 2}:
            straight = all(self.steady[t][1:])
            names = [self.array(f"g{r}_{c}") for r in range(d) for c in range(d)] + [self.array("det")]
            (self.head if straight else self.interpolation).extend(inverse_jacobians(d, names))

    def read_field(self, i: str, base: str, t: int, width: int, used: list[tuple[int, int]]) -> None:
        """Gather the components that are used, and interpolate their slots."""
        size, components = self.sizes[t], sorted({c for c, _ in used})
        for c in components:
            self.room.append(f"T n{i}_{c}[most[{t}]];")
            self.array(f"u{i}_{c}", size)
        copies = " ".join(f"n{i}_{c}[j] = x[{c}];" for c in components)
        self.block += [
            f"for (int64_t j = 0; j < start[{t}][block + 1] - start[{t}][block]; j++) {{",
            f"const T *x = {base} + (int64_t)node[{t}][start[{t}][block] + j] * {width}; {copies} }}",
        ]
        copies = " ".join(f"u{i}_{c}[a][i] = n{i}_{c}[z[i]];" for c in components)
        self.before += [
            f"for (int64_t a = 0; a < {size}; a++) {{",
            f"const int16_t *z = local[{t}] + (block * {size} + a) * G + lane;",
            f"for (int64_t i = 0; i < W; i++) {{ {copies} }} }}",
        ]
        for c in components:
            for steady, target in ((True, self.head), (False, self.interpolation)):
                slots = [(s, self.array(f"v{i}_{c}_{s}")) for k, s in used if k == c and self.steady[t][s] == steady]
                if slots:
                    target += self.interpolated(f"u{i}_{c}", t, slots)

    def interpolated(self, nodal: str, t: int, slots: Sequence[Slot]) -> list[str]:
        """v[j] = Σ_a w[s, a] u[a, j] for each slot s."""
        size = self.sizes[t]
        return [
            "for (int64_t j = 0; j < W; j += L) {",
            f"V {', '.join(f's{s} = {{0}}' for s, _ in slots)};",
            f"for (int64_t a = 0; a < {size}; a++) {{ const V x = AT({nodal}[a][j]);",
            *[f"s{s} += w{t}[{s * size} + a] * x;" for s, _ in slots],
            "}",
            *[f"AT({array}[0][j]) = s{s};" for s, array in slots],
            "}",
        ]

    def source(self, i: int, k: int, s: int) -> Value:
        """An input of the program at the point."""
        kind = self.loop.inputs[i].kind
        if self.nodal and i in self.loop.place:
            return self.point.let(
                (f"vx_{k}_0[0][i]", f"g{k // self.loop.dim}_{k % self.loop.dim}[0][i]", "det[0][i] * weights[q]")[
                    self.loop.place.index(i)
                ]
            )
        if kind == "constant":
            return f"p{i}[{k}]"
        return self.point.let(f"v{i}_{k}_{s}[0][i]" if kind == "field" else f"p{i}[cell[i] * e{i} + q * q{i} + {k}]")

    # -- derivatives ---------------------------------------------------------------------------------------------------

    def write_gradient(self, outputs: list[Value]) -> None:
        if self.loop.has_value and (value := outputs.pop(0)) != 0:
            self.point.lines.append(f"total += {self.point.text(value)};")
        for size in self.loop.scatters:
            for i in self.loop.wrt:
                pairs = zip(self.loop.slopes, outputs, strict=True)
                slopes = [(c, s, self.sized(v, size)) for (j, c, s), v in pairs if j == i and v != 0]
                kind = self.loop.inputs[i].kind
                if kind == "field":
                    self.write_field(i, slopes, size)
                elif kind == "constant":
                    self.write_sums(i, slopes)
                else:
                    self.write_points(i, slopes, kind == "steady")

    def sized(self, value: Value, size: bool) -> Value:
        return self.point.call("fabs", self.point.text(value)) if size else value

    def kept(self, name: str, value: Value, summed: bool) -> str:
        """An array with a value at the point, or its sum over all points."""
        self.array(name, zero=summed)
        self.point.lines.append(f"{name}[0][i] {'+=' if summed else '='} {self.point.text(value)};")
        return name

    def write_field(self, i: int, slopes: list[tuple[int, int, Value]], size: bool) -> None:
        o, t, width = next(self.outputs), self.loop.basis(i), prod(self.loop.inputs[i].shape)
        a, stored = self.sizes[t], []
        for c in sorted({c for c, _, _ in slopes}):
            self.array(f"r{o}_{c}", a, zero=True)
            stored.append(f"y{o}[z[i] * {width} + {c}] += r{o}_{c}[a][i];")
            for steady, target in ((False, self.spread), (True, self.end)):
                own = [(s, v) for k, s, v in slopes if k == c and self.steady[t][s] == steady]
                if own:
                    slots = [(s, self.kept(f"f{o}_{c}_{s}", v, steady)) for s, v in own]
                    target += self.returned(f"r{o}_{c}", t, slots, size)
        self.parts.append((t, width))
        self.block += [
            f"T *y{o} = part[{o}] + (int64_t)start[{t}][block] * {width};",
            f"for (int64_t j = 0; j < (start[{t}][block + 1] - start[{t}][block]) * {width}; j++) y{o}[j] = 0;",
        ]
        self.after += [
            f"for (int64_t a = 0; a < {a}; a++) {{",
            f"const int16_t *z = local[{t}] + (block * {a} + a) * G + lane;",
            f"for (int64_t i = 0; i < n; i++) {{ {' '.join(stored)} }} }}",
        ]
        self.scatter.append(
            f"add(part[{o}], first[{t}], place[{t}], to[{o}] * t / all, to[{o}] * (t + 1) / all, {width}, "
            f"out[{o}] + b * to[{o}] * {width});"
        )

    def returned(self, nodal: str, t: int, slots: Sequence[Slot], size: bool) -> list[str]:
        """r[a, j] += Σ_s w[s, a] f_s[j], the transpose of `interpolated`; with `size` of absolute values."""
        row, a = "m" if size else "w", self.sizes[t]
        total = " + ".join(f"{row}{t}[{s * a} + a] * s{s}" for s, _ in slots)
        return [
            "for (int64_t j = 0; j < W; j += L) {",
            *[f"const V s{s} = AT({array}[0][j]);" for s, array in slots],
            f"for (int64_t a = 0; a < {a}; a++) AT({nodal}[a][j]) += {total};",
            "}",
        ]

    def write_sums(self, i: int, slopes: list[tuple[int, int, Value]]) -> None:
        for k in range(prod(self.loop.inputs[i].shape)):
            self.sums.append(f"sum{len(self.sums)}")
            self.point.lines += [f"{self.sums[-1]} += {self.point.text(v)};" for c, _, v in slopes if c == k]

    def write_points(self, i: int, slopes: list[tuple[int, int, Value]], steady: bool) -> None:
        o, entries = next(self.outputs), prod(self.loop.inputs[i].shape)
        self.parts.append((None, 0))
        self.before.append(f"T *y{o} = out[{o}] + b * E * {'1' if steady else 'Q'} * {entries};")
        for k, _, v in slopes:
            if steady:
                array = self.kept(f"f{o}_{k}", v, True)
                self.end.append(f"for (int64_t i = 0; i < n; i++) y{o}[cell[i] * {entries} + {k}] = {array}[0][i];")
            else:
                self.point.lines.append(f"y{o}[(cell[i] * Q + q) * {entries} + {k}] = {self.point.text(v)};")

    # -- as a whole ----------------------------------------------------------------------------------------------------

    @cached_property
    def width(self) -> int:
        """Cells that one loop takes: what it reads and writes stays in the nearest cache, as far as it can.

        That is half of it: the nodal values of the block lie there too.
        """
        most = NEAREST // 2 // (max(self.rows, 1) * self.dtype.itemsize)
        if self.is_matrix:
            most = min(most, LARGEST // (self.parts[0][1] * self.dtype.itemsize))
        vectors = min(max(most // self.lanes, 1), 8)
        return min((1 << vectors.bit_length() - 1) * self.lanes, self.size)

    @property
    def size(self) -> int:
        """Cells of a block."""
        return block_size(self.sizes[0])

    @property
    def is_matrix(self) -> bool:
        return self.loop.columns is not None

    def function(self, position: torch.dtype = torch.int32) -> CFunction:
        """The loop, compiled for positions in a sparse matrix of some type."""
        if position not in self.functions:
            self.functions[position] = self.written(position)
        return self.functions[position]

    def written(self, position: torch.dtype) -> CFunction:
        widths = [(1 + self.loop.dim) * a for a in self.sizes]
        rows = [
            [
                f"const T *w{t} = tables[{t}] + (group[block] * 2 * Q + {q}) * {w}, *m{t} = w{t} + Q * {w};"
                for t, w in enumerate(widths)
            ]
            for q in "0q"
        ]
        text = inserted(
            c_text("fem.kernels.cells", "cell_loop.c"),
            functions=self.point.declarations,
            room=[*self.room, f"const T *weights = tables[{len(widths)}];"],
            block=self.block,
            reductions=[", ".join(f"{s} = 0" for s in self.sums)],
            sums=[", ".join(self.sums)],
            before=[*rows[0], *self.before],
            head=self.head,
            tables=rows[1],
            interpolation=self.interpolation,
            point=self.point.lines,
            spread=self.spread,
            end=self.end,
            after=[*[f"own[{j}] += {s};" for j, s in enumerate(self.sums)], *self.after],
            # Threads meet before sums of blocks are added to nodes, and once more before others take their place.
            nowait=[] if self.scatter else ["nowait"],
            scatter=[*self.scatter, "if (b + 1 < B || high < blocks) {\n#pragma omp barrier\n}"]
            if self.scatter
            else [],
        )
        numbers = {"L": self.lanes, "W": self.width, "G": self.size, "SUMS": len(self.sums)}
        return CFunction(text, True, T=self.dtype, P=position, **numbers)

    @cached_property
    def constants(self) -> Tensor:
        return self.point.constants

    @cached_property
    def tables(self) -> list[Tensor]:
        """Each table and its absolute values for each group, and the weights of the points."""
        rule, tables = self.loop.rule, [*self.loop.tables, *([self.loop.geometry] if self.nodal else [])]
        weights = torch.tensor(rule.weights, dtype=self.dtype, device="cpu")
        return [*[torch.stack([t, t.abs()], 1).to(self.dtype) for t in tables], weights]

    # -- calling -------------------------------------------------------------------------------------------------------

    def run(self, data: CellInputs, layout: Layout, maps: Sequence[GatherScatter], results: Sequence[Tensor]) -> Tensor:
        """Derivatives added to fields "b n c" and written elsewhere; the sums "b j".

        The first sum is that of ψ, the others are derivatives with respect to entries of constants.
        """
        return self.call(self.function(), data, layout, maps, None, results, [r.shape[1] for r in results])

    def add_matrix(
        self,
        data: CellInputs,
        layout: Layout,
        maps: Sequence[GatherScatter],
        position: Int[Tensor, "e A A"],
        values: Tensor,
    ) -> None:
        """Element matrices added to entries "b z" of a sparse matrix."""
        rows = [data.tensors[i].shape[1] for i in self.loop.wrt]
        self.call(self.function(position.dtype), data, layout, maps, position, [values], [values.shape[-1], *rows])

    def work(self, data: CellInputs) -> int:
        """As many numbers as the loop reads; entries of matrices count as what they cost without it."""
        read = data.points * max(sum(s is not None for s in self.loop.sources), 1)
        return data.size * data.cells * (read + 4 * self.parts[0][1] if self.is_matrix else read)

    def call(
        self,
        function: CFunction,
        data: CellInputs,
        layout: Layout,
        maps: Sequence[GatherScatter],
        position: Any,
        out: Sequence[Tensor],
        to: list[int],
    ) -> Tensor:
        tensors = [laid_out(t, i.kind) for t, i in zip(data.tensors, self.loop.inputs, strict=True)]
        if self.nodal:
            assert data.nodes is not None
            tensors.append(data.nodes.contiguous())
        numberings, chunk = [layout.numbering(m) for m in maps], layout.blocks
        dofs = [m.dofs.contiguous() for m in maps]
        if self.is_matrix:
            # What waits stays in the caches; threads wait for each other after each chunk, and so get larger ones.
            room = CACHE if num_threads() == 1 else THREADED
            chunk = room // (self.parts[0][1] * self.dtype.itemsize * self.size)
            chunk = min(max(chunk, num_threads()), layout.blocks)
        sizes = [len(numberings[t].nodes) * n if t is not None else chunk * self.size * n for t, n in self.parts]
        parts = [torch.empty(size, dtype=self.dtype, device="cpu") for size in sizes]
        partial = torch.empty(data.size * layout.blocks * len(self.sums), dtype=torch.float64, device="cpu")
        sums = torch.zeros(data.size, len(self.sums), dtype=torch.float64, device="cpu")
        at = [stride for t, i in zip(tensors, self.loop.inputs, strict=False) for stride in strides(t, i.kind)]
        *lists, most = zip(*numberings, strict=True)
        function(
            *(data.size, data.cells, data.points, layout.blocks, chunk, tensors, at),
            *(layout.order, layout.bounds, layout.groups, *lists, most, dofs, position),
            *(self.tables, self.constants, parts, out, to, partial, sums),
        )
        return sums


def laid_out(t: Tensor, kind: str) -> Tensor:
    """A tensor whose entries lie side by side; of fields and constants whole items do."""
    free = kind in ("points", "steady") and (t.shape[-1] == 1 or t.stride(-1) == 1)
    return t if free else t.contiguous()


def strides(t: Tensor, kind: str) -> tuple[int, int, int]:
    """Of batch, cell and point, 0 where one serves all."""
    batch, *rest = (step * (n > 1) for step, n in zip(t.stride(), t.shape, strict=True))
    cell, point = rest[:2] if kind in ("points", "steady") else (0, 0)
    return batch, cell, point


def generated(loop: CellLoop, data: CellInputs) -> CellSource | None:
    """The loop as C code, if C has what it takes and the tensors are the CPU's."""
    if any(t.device.type != "cpu" or t.dtype != data.like.dtype for t in data.tensors):
        return None
    key = data.like.dtype, data.nodes is not None
    if key not in loop.generated:
        try:
            loop.generated[key] = CellSource(loop, *key)
        except UnsupportedError:
            loop.generated[key] = None
    return loop.generated[key]
