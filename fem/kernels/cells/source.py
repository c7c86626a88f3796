"""Loops over the cells of any mesh as C (`cell_loop.c`): what happens in a cell, and at each of its points.

Nodal values of some cells are gathered, interpolated with the table of the point, put through the density's program,
and what comes out is sent back to the nodes, with one cell in each lane of a vector. Slots that do not vary within a
cell (gradients of linear functions on simplices) are interpolated once, and what multiplies them is summed over the
points before it is sent back. Tables and numbers are arguments, so that meshes, parameters and rules share compiled
code; loops over local basis functions stay loops, so that it is short whatever the degree.
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
from fem.kernels.cells.loop import CellLoop
from fem.support.c_function import CFunction, c_text
from fem.support.portions import CACHE, NEAREST
from fem.support.threads import num_threads

STRIDES = 3  # of each input: batch, cell, point
VECTOR = 64  # bytes
THREADED = 2**24  # bytes that wait where several threads take part
LARGEST = 2**19  # bytes of the element matrices of as many cells as a vector has numbers

Dofs = Sequence[Int[Tensor, "e a"]]
Slot = tuple[int, str]  # of a table, and the array of its values


class CellSource:
    """A `CellLoop` as C code.

    Raises:
        UnsupportedError: an operation that C code is not written for, or element matrices too large for the caches.
    """

    def __init__(self, loop: CellLoop, dtype: torch.dtype):
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedError
        self.loop, self.dtype, self.point = loop, dtype, LoopBody(dtype)
        self.lanes = VECTOR // dtype.itemsize
        self.sizes = [table.shape[-1] for table in loop.tables]
        self.before, self.head, self.interpolation = list[str](), list[str](), list[str]()
        self.spread, self.end, self.after, self.scatter = list[str](), list[str](), list[str](), list[str]()
        self.sums, self.outputs = ["total"], count()
        self.rows = 0  # of all arrays together
        self.parts: list[int] = []  # numbers of each cell that wait
        self.functions: dict[torch.dtype, CFunction] = {}
        self.read_inputs()
        sources = [None if s is None else self.source(*s) for s in loop.sources]
        outputs = self.point.run(loop.program, sources)
        if loop.scatters or not loop.wrt:
            self.write_gradient(outputs)
        else:
            self.write_matrix(outputs)

    def array(self, name: str, rows: int = 1, zero: bool = False) -> str:
        """One more array over the cells that one loop takes."""
        self.rows += rows
        self.before.append(f"T {name}[{rows}][W] ARRAY{' = {{0}}' if zero else ''};")
        return name

    def steady(self, t: int, s: int) -> bool:
        """Whether a slot of a table is the same at all points."""
        return bool((self.loop.tables[t][:, s] == self.loop.tables[t][0, s]).all())

    # -- reading -------------------------------------------------------------------------------------------------------

    def read_inputs(self) -> None:
        used = dict.fromkeys(s for s in self.loop.sources if s is not None)
        for i in sorted({s[0] for s in used}):
            kind, at = self.loop.inputs[i].kind, [f"at[{i * STRIDES + k}]" for k in range(STRIDES)]
            base = f"in[{i}] + b * {at[0]}"
            if kind == "field":
                self.read_field(i, base, [s[1:] for s in used if s[0] == i])
            elif kind == "constant":
                self.before.append(f"const T *p{i} = {base};")
            else:
                self.before.append(f"const T *p{i} = {base} + first * {at[1]};")
                self.before.append(f"const int64_t e{i} = {at[1]}, q{i} = {at[2]};")

    def read_field(self, i: int, base: str, used: list[tuple[int, int]]) -> None:
        """Gather the components that are used, and interpolate their slots."""
        t, width = self.loop.basis(i), prod(self.loop.inputs[i].shape)
        size, components = self.sizes[t], sorted({c for c, _ in used})
        copies = [f"{self.array(f'u{i}_{c}', size)}[a][i] = x[{c}];" for c in components]
        self.before += [
            f"for (int64_t i = 0; i < n; i++) for (int64_t a = 0; a < {size}; a++) {{",
            f"const T *x = {base} + dofs[{t}][(first + i) * {size} + a] * {width}; {' '.join(copies)} }}",
        ]
        for c in components:
            for steady, target in ((True, self.head), (False, self.interpolation)):
                slots = [(s, self.array(f"v{i}_{c}_{s}")) for k, s in used if k == c and self.steady(t, s) == steady]
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
        if kind == "constant":
            return f"p{i}[{k}]"
        return self.point.let(f"v{i}_{k}_{s}[0][i]" if kind == "field" else f"p{i}[i * e{i} + q * q{i} + {k}]")

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
        for c in range(width):
            self.array(f"r{o}_{c}", a, zero=True)
            stored.append(f"z[{c}] = r{o}_{c}[a][i];")
            for steady, target in ((False, self.spread), (True, self.end)):
                own = [(s, v) for k, s, v in slopes if k == c and self.steady(t, s) == steady]
                if own:
                    slots = [(s, self.kept(f"f{o}_{c}_{s}", v, steady)) for s, v in own]
                    target += self.returned(f"r{o}_{c}", t, slots, size)
        self.parts.append(a * width)
        self.after += [
            f"{{ T *z = part[{o}] + (first - low) * {a * width};",
            f"for (int64_t i = 0; i < n; i++) for (int64_t a = 0; a < {a}; a++, z += {width}) {{",
            *stored,
            "} }",
        ]
        self.scatter.append(
            f"add(part[{o}], dofs[{t}] + low * {a}, high - low, {a}, {width}, to[{o}] * t / all, "
            f"to[{o}] * (t + 1) / all, out[{o}] + b * to[{o}] * {width});"
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
        self.parts.append(0)
        self.before.append(f"T *y{o} = out[{o}] + (b * E + first) * {'1' if steady else 'Q'} * {entries};")
        for k, _, v in slopes:
            if steady:
                array = self.kept(f"f{o}_{k}", v, True)
                self.end.append(f"for (int64_t i = 0; i < n; i++) y{o}[i * {entries} + {k}] = {array}[0][i];")
            else:
                self.point.lines.append(f"y{o}[(i * Q + q) * {entries} + {k}] = {self.point.text(v)};")

    # -- second derivatives --------------------------------------------------------------------------------------------

    def write_matrix(self, outputs: list[Value]) -> None:
        """K_AB = Σ_q Σ_st C_st w[s, A] w[t, B] of nodes a ≤ b, with A = (a, c), and its mirror image."""
        t, width = self.loop.basis(0), prod(self.loop.inputs[0].shape)
        slots, a = [s[1:] for s in self.loop.slopes], self.sizes[t]
        size = a * width
        if size**2 * VECTOR > LARGEST:
            raise UnsupportedError
        self.before.append(f"T K[{size * size}][W] ARRAY = {{{{0}}}};")
        for steady, target in ((False, self.spread), (True, self.end)):
            arrays: dict[Value, str] = {}
            found: dict[tuple[int, int], str] = {}
            for place, value in enumerate(outputs):
                m, n = divmod(place, len(slots))
                if value != 0 and (self.steady(t, slots[m][1]) and self.steady(t, slots[n][1])) == steady:
                    if value not in arrays:
                        arrays[value] = self.kept(f"c{int(steady)}_{len(arrays)}", value, steady)
                    found[m, n] = arrays[value]
            for c in range(width):
                target += self.products(t, width, c, slots, found)
        self.parts.append(size * size)
        self.after += [
            f"{{ T *z = part[0] + (first - low) * {size * size};",
            f"for (int64_t i = 0; i < n; i++, z += {size * size})",
            f"for (int64_t B = 0; B < {size}; B++) for (int64_t A = 0; A < (B / {width} + 1) * {width}; A++)",
            f"z[A * {size} + B] = z[B * {size} + A] = K[B * {size} + A][i]; }}",
        ]
        self.scatter.append(
            f"add_rows(part[0], dofs[{t}] + low * {a}, position + low * {size * size}, high - low, {a}, {width}, "
            "to[0] * t / all, to[0] * (t + 1) / all, out[0] + b * to[1]);"
        )

    def products(
        self, t: int, width: int, column: int, slots: list[tuple[int, int]], found: dict[tuple[int, int], str]
    ) -> list[str]:
        """The columns B = (b, c) of one component c: g_s = Σ_t C_st w[t, b], then K_AB += Σ_s w[s, a] g_s."""
        a, rows, lines = self.sizes[t], list[str](), dict[int, list[str]]()
        columns = [(n, s) for n, (c, s) in enumerate(slots) if c == column]
        for m, (c, s) in enumerate(slots):
            own = [(found[m, n], r) for n, r in columns if (m, n) in found]
            terms = [f"AT({array}[0][j]) * w{t}[{r * a} + b]" for array, r in own]
            if terms:
                rows.append(f"const V g{m} = {' + '.join(terms)};")
                lines.setdefault(c, []).append(f"w{t}[{s * a} + a] * g{m}")
        if not rows:
            return []
        place = f"(b * {width} + {column}) * {a * width} + a * {width}"
        return [
            f"for (int64_t b = 0; b < {a}; b++) for (int64_t j = 0; j < W; j += L) {{",
            *rows,
            "for (int64_t a = 0; a <= b; a++) {",
            *[f"AT(K[{place} + {c}][j]) += {' + '.join(terms)};" for c, terms in lines.items()],
            "} }",
        ]

    # -- as a whole ----------------------------------------------------------------------------------------------------

    @cached_property
    def width(self) -> int:
        """Cells that one loop takes: what it reads and writes stays in the nearest cache, as far as it can."""
        most = NEAREST // (max(self.rows, 1) * self.dtype.itemsize)
        most = most if not self.is_matrix else min(most, LARGEST // (self.parts[0] * self.dtype.itemsize))
        return min(max(most // self.lanes, 1), 8) * self.lanes

    @property
    def is_matrix(self) -> bool:
        return bool(self.loop.wrt) and not self.loop.scatters

    def function(self, position: torch.dtype = torch.int32) -> CFunction:
        """The loop, compiled for positions in a sparse matrix of some type."""
        if position not in self.functions:
            self.functions[position] = self.written(position)
        return self.functions[position]

    def written(self, position: torch.dtype) -> CFunction:
        widths = [(1 + self.loop.dim) * a for a in self.sizes]
        rows = [
            [f"const T *w{t} = tables[{t}] + {q} * {w}, *m{t} = w{t} + Q * {w};" for t, w in enumerate(widths)]
            for q in "0q"
        ]
        text = inserted(
            c_text("fem.kernels.cells", "cell_loop.c"),
            functions=self.point.declarations,
            reductions=[", ".join(f"{s} = 0" for s in self.sums)],
            sums=[", ".join(self.sums)],
            before=[*rows[0], *self.before],
            head=self.head,
            tables=rows[1],
            interpolation=self.interpolation,
            point=self.point.lines,
            spread=self.spread,
            end=self.end,
            after=[*[f"own[{j}] = {s};" for j, s in enumerate(self.sums)], *self.after],
            scatter=self.scatter,
        )
        return CFunction(text, True, T=self.dtype, P=position, L=self.lanes, W=self.width, SUMS=len(self.sums))

    @cached_property
    def constants(self) -> Tensor:
        return self.point.constants

    @cached_property
    def tables(self) -> list[Tensor]:
        """Each table and its absolute values."""
        return [torch.stack([t, t.abs()]).to(self.dtype) for t in self.loop.tables]

    # -- calling -------------------------------------------------------------------------------------------------------

    def run(self, data: CellInputs, dofs: Dofs, results: Sequence[Tensor]) -> Tensor | None:
        """Derivatives added to fields "b n c" and written elsewhere; the sums "b j", None if not compiled (yet).

        The first sum is that of ψ, the others are derivatives with respect to entries of constants.
        """
        if not self.function().ready(self.work(data)):
            return None
        return self.call(self.function(), data, dofs, None, results, [r.shape[1] for r in results])

    def add_matrix(self, data: CellInputs, dofs: Dofs, position: Int[Tensor, "e A A"], values: Tensor) -> bool:
        """Element matrices added to entries "b z" of a sparse matrix, if it is compiled (by now)."""
        function = self.function(position.dtype)
        if not function.ready(self.work(data)):
            return False
        self.call(function, data, dofs, position, [values], [data.tensors[0].shape[1], values.shape[-1]])
        return True

    def work(self, data: CellInputs) -> int:
        """As many numbers as the loop reads; entries of matrices count as what they cost without it."""
        read = data.points * max(sum(s is not None for s in self.loop.sources), 1)
        return data.size * data.cells * (read + 4 * self.parts[0] if self.is_matrix else read)

    def call(
        self, function: CFunction, data: CellInputs, dofs: Dofs, position: Any, out: Sequence[Tensor], to: list[int]
    ) -> Tensor:
        tensors = [laid_out(t, i.kind) for t, i in zip(data.tensors, self.loop.inputs, strict=True)]
        blocks = -(-data.cells // self.width)
        # What waits stays in the caches; threads wait for each other after each chunk, and so get larger ones.
        room = CACHE if num_threads() == 1 else THREADED
        chunk = room // (max(*self.parts, 1, 1) * self.dtype.itemsize) // self.width
        chunk = min(max(chunk, 8), blocks) * self.width
        parts = [torch.empty(chunk * size, dtype=self.dtype, device="cpu") for size in self.parts]
        partial = torch.empty(data.size * blocks * len(self.sums), dtype=torch.float64, device="cpu")
        sums = torch.zeros(data.size, len(self.sums), dtype=torch.float64, device="cpu")
        at = [stride for t, i in zip(tensors, self.loop.inputs, strict=True) for stride in strides(t, i.kind)]
        function(
            *(data.size, data.cells, data.points, chunk, tensors, at, dofs, position, self.tables, self.constants),
            *(parts, out, to, partial, sums),
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
    key = data.like.dtype
    if key not in loop.generated:
        try:
            loop.generated[key] = CellSource(loop, key)
        except UnsupportedError:
            loop.generated[key] = None
    return loop.generated[key]
