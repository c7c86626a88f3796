"""Loops over patches of splines as C (`patch_loop.c`): sum factorisation around a density's program.

Tables, numbers and what functions live where are arguments, so that patches, knots and parameters of the same degrees
share compiled code.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import count as counter
from math import prod
from typing import Any

import torch
from torch import Tensor

from fem.kernels.c_operations import LoopBody, UnsupportedError, Value, inserted
from fem.kernels.patches.loop import PatchInputs, PatchLoop
from fem.support.c_function import CFunction, c_text
from fem.support.portions import NEAREST

STRIDES = 5  # of each input: batch, line, span, point, entry
VECTOR = 64  # bytes
PORTIONS = 32  # of layers, at most
DENSE = 8  # as many numbers count for one, since matrices take its place without C code
LAYERS = 8  # of a portion at least: beside what it sends to nodes of its neighbours
AXES = "xyz"
KINDS = ("plain", "size", "pairs")


class PatchSource:
    """A `PatchLoop` as C code.

    Raises:
        UnsupportedError: an operation that C code is not written for, or a patch that is a curve.
    """

    def __init__(self, loop: PatchLoop, dtype: torch.dtype):
        if dtype not in (torch.float32, torch.float64) or loop.dim < 2:
            raise UnsupportedError
        self.loop, self.dtype, self.point = loop, dtype, LoopBody(dtype)
        self.lanes = VECTOR // dtype.itemsize
        names = ("start", "layer", "line", "before", "interpolation", "spread", "after", "ended", "back", "joined")
        self.lines: dict[str, list[str]] = {name: [] for name in names}
        self.room = ["64"]
        self.sums, self.outputs, self.rows = ["total"], counter(), 0
        self.read_inputs()
        sources = [None if s is None else self.source(s) for s in loop.sources]
        outputs = self.point.run(loop.program, sources)
        if loop.has_value and (value := outputs.pop(0)) != 0:
            self.point.lines.append(f"total += {self.point.text(value)};")
        if loop.wrt and not loop.scatters:
            self.write_values(outputs)
        for kind in loop.scatters:
            for i in loop.wrt:
                slopes = [(s, v) for s, v in zip(loop.slopes, outputs, strict=True) if s[0] == i and v != 0]
                self.write_slopes(i, [(s, self.sized(v) if kind == "size" else v) for s, v in slopes], kind)
        self.lines["spread"] += [f"own[{j}] += {s};" for j, s in enumerate(self.sums)]

    # -- names ---------------------------------------------------------------------------------------------------------

    def family(self, i: int) -> int:
        return self.loop.families.index(self.loop.inputs[i].basis)

    def widths(self, i: int) -> tuple[int, int, int]:
        """Functions on a span along x, within a layer and across layers."""
        return placed(self.loop.widths[self.loop.inputs[i].basis], 1)

    def table(self, i: int, axis: int, kind: str = "plain") -> str:
        return f"tables[{(KINDS.index(kind) * len(self.loop.families) + self.family(i)) * 3 + axis}]"

    def first(self, i: int, axis: int) -> str:
        return f"first[{self.family(i) * 3 + axis}]"

    def size(self, i: int, *axes: int) -> str:
        """Numbers in a field's functions of some directions, all components."""
        return " * ".join([f"dims[{self.family(i) * 3 + a}]" for a in axes] + [str(prod(self.loop.inputs[i].shape))])

    def array(self, name: str, rows: int = 1, zero: bool = False) -> str:
        """One more array over the spans that one loop takes."""
        self.rows += rows
        self.lines["before"].append(f"T {name}[{rows}][W] ARRAY{' = {{0}}' if zero else ''};")
        return name

    def reserve(self, name: str, size: str) -> None:
        """A part of a thread's own memory."""
        self.room.append(f"ROOM({size})")
        self.lines["start"].append(f"T *{name} = next; next += ROOM({size});")

    # -- reading -------------------------------------------------------------------------------------------------------

    def read_inputs(self) -> None:
        used = list(dict.fromkeys(s for s in self.loop.sources if s is not None))
        for i in sorted({s[0] for s in used}):
            kind, at = self.loop.inputs[i].kind, [f"at[{i * STRIDES + k}]" for k in range(STRIDES)]
            if kind == "field":
                self.read_field(i, [(c, placed(o, 0)) for j, c, o in used if j == i])
            elif kind == "constant":
                self.lines["start"].append(f"const T *p{i} = in[{i}] + b * {at[0]};")
            else:
                base = f"in[{i}] + b * {at[0]} + line * {at[1]} + x * {at[2]} + q * {at[3]}"
                self.lines["interpolation"].append(f"const T *p{i} = {base};")
                self.lines["start"].append(f"const int64_t e{i} = {at[2]}, k{i} = {at[4]};")

    def read_field(self, i: int, used: list[tuple[int, tuple[int, int, int]]]) -> None:
        X, Y, Z = self.widths(i)
        layer, line, flat = self.size(i, 0, 1), self.size(i, 0), self.loop.dim == 2
        for o in sorted({o[2] for _, o in used}):
            self.reserve(f"z{i}_{o}", f"QZ * {layer}")
            self.lines["layer"] += [
                f"for (int64_t c = 0; c < QZ; c++) {{ const int64_t m = {layer};",
                f"const T *v = in[{i}] + b * at[{i * STRIDES}] + {self.first(i, 2)}[z] * m;",
                f"const T *w = {self.table(i, 2)} + (({o} * NZ + z) * QZ + c) * {Z};",
                f"T *t = z{i}_{o} + c * m; {combined('t', Z)} }}",
            ]
        for o in sorted({o[1:] for _, o in used}):
            row = f"r{i}_{o[0]}{o[1]}"
            if flat:
                self.lines["line"].append(f"const T *{row} = z{i}_{o[1]} + cz * {layer};")
                continue
            self.reserve(row, line)
            self.lines["line"] += [
                f"{{ const int64_t m = {line};",
                f"const T *v = z{i}_{o[1]} + cz * {layer} + {self.first(i, 1)}[y] * m;",
                f"const T *w = {self.table(i, 1)} + (({o[0]} * NY + y) * QY + cy) * {Y}; {combined(row, Y)} }}",
            ]
        width, gathered = prod(self.loop.inputs[i].shape), dict.fromkeys((c, o[1:]) for c, o in used)
        for c, o in gathered:
            row, name = f"r{i}_{o[0]}{o[1]}", self.array(f"g{i}_{c}_{o[0]}{o[1]}", X)
            self.lines["before"].append(
                f"for (int64_t a = 0; a < {X}; a++) {{ for (int64_t i = 0; i < n; i++) {name}[a][i] = "
                f"{row}[({self.first(i, 0)}[x + i] + a) * {width} + {c}]; "
                f"for (int64_t i = n; i < W; i++) {name}[a][i] = 0; }}"
            )
        tables = sorted({o[0] for _, o in used})
        for c in sorted({c for c, _ in used}):
            own = [o for d, o in used if d == c]
            names = {o: self.array(f"v{i}_{c}_{o[0]}{o[1]}{o[2]}") for o in own}
            rows = dict.fromkeys(o[1:] for o in own)
            self.lines["interpolation"] += [
                "for (int64_t j = 0; j < W; j += L) {",
                f"V {', '.join(f's{o[0]}{o[1]}{o[2]} = {{0}}' for o in own)};",
                f"for (int64_t a = 0; a < {X}; a++) {{",
                *[f"const V w{t} = AT({self.table(i, 0)}[(({t} * QX + cx) * {X} + a) * NP + x + j]);" for t in tables],
                *[f"const V x{m}{z} = AT(g{i}_{c}_{m}{z}[a][j]);" for m, z in rows],
                *[f"s{o[0]}{o[1]}{o[2]} += w{o[0]} * x{o[1]}{o[2]};" for o in own],
                "}",
                *[f"AT({name}[0][j]) = s{o[0]}{o[1]}{o[2]};" for o, name in names.items()],
                "}",
            ]

    def source(self, source: Any) -> Value:
        """An input of the program at the point."""
        i, k, orders = source
        kind = self.loop.inputs[i].kind
        if kind == "constant":
            return f"p{i}[{k}]"
        if kind == "field":
            return self.point.let(f"v{i}_{k}_{''.join(map(str, placed(orders, 0)))}[0][i]")
        return self.point.let(f"p{i}[i * e{i} + {k} * k{i}]" if kind == "points" else f"p{i}[i + {k} * k{i}]")

    # -- writing -------------------------------------------------------------------------------------------------------

    def sized(self, value: Value) -> Value:
        return self.point.call("fabs", self.point.text(value))

    def write_values(self, outputs: list[Value]) -> None:
        """All outputs at all points, by lines of spans with spans inmost."""
        count = len(outputs)
        self.lines["interpolation"].append(
            f"T *values = out[0] + (((b * NZ * NY + line) * QX * QY * QZ + q) * {count}) * NX + x;"
        )
        self.point.lines += [f"values[{k} * NX + i] = {self.point.text(v)};" for k, v in enumerate(outputs)]

    def write_slopes(self, i: int, slopes: list[tuple[Any, Value]], kind: str) -> None:
        given = self.loop.inputs[i]
        entries = prod(given.shape)
        if given.kind == "constant":
            for k in range(entries):
                self.sums.append(f"sum{len(self.sums)}")
                self.point.lines += [f"{self.sums[-1]} += {self.point.text(v)};" for s, v in slopes if s[1] == k]
            return
        o = next(self.outputs)
        if given.kind != "field":
            self.lines["interpolation"].append(
                f"T *y{o} = out[{o}] + ((b * E + line * NX + x) * (QX * QY * QZ) + q) * {entries};"
            )
            self.point.lines += [
                f"y{o}[i * (QX * QY * QZ) * {entries} + {s[1]}] = {self.point.text(v)};" for s, v in slopes
            ]
            return
        total: dict[tuple[int, tuple[int, int, int]], list[Value]] = {}
        for (_, c, orders), v in slopes:
            total.setdefault((c, placed(orders, 0)), []).append(v)
        summed = {name: self.point.combination([(1.0, v) for v in values]) for name, values in total.items()}
        self.write_field(o, i, summed, kind)

    def write_field(self, o: int, i: int, found: dict[tuple[int, tuple[int, int, int]], Value], kind: str) -> None:
        X, Y, Z = self.widths(i)
        layer, line, flat = self.size(i, 0, 1), self.size(i, 0), self.loop.dim == 2
        width, lines = prod(self.loop.inputs[i].shape), self.lines
        lines["start"] += [
            f"const int64_t l{o} = {layer}, base{o} = {self.first(i, 2)}[lowest];",
            f"T *t{o} = part[{o}] + s * dims[{self.place_of_room(o)}] * l{o};",
            f"memset(t{o}, 0, ({self.first(i, 2)}[highest - 1] - base{o} + {Z}) * l{o} * sizeof(T));",
        ]
        layers = sorted({n[1][2] for n in found})
        for z in layers:
            self.reserve(f"b{o}_{z}", f"QZ * {layer}")
            lines["layer"].append(f"memset(b{o}_{z}, 0, QZ * l{o} * sizeof(T));")
        for m, z in sorted({n[1][1:] for n in found}):
            row = f"h{o}_{m}{z}"
            if flat:
                lines["line"].append(f"T *{row} = b{o}_{z} + cz * l{o};")
                continue
            self.reserve(row, line)
            lines["line"].append(f"memset({row}, 0, {line} * sizeof(T));")
        if not flat:
            for z in layers:
                rows = sorted({n[1][1] for n in found if n[1][2] == z})
                terms = " + ".join(f"w{m}[a] * h{o}_{m}{z}[j]" for m in rows)
                tables = " ".join(
                    f"const T *w{m} = {self.table(i, 1, kind)} + (({m} * NY + y) * QY + cy) * {Y};" for m in rows
                )
                lines["ended"] += [
                    f"{{ const int64_t m = {line}; {tables}",
                    f"T *v = b{o}_{z} + cz * l{o} + {self.first(i, 1)}[y] * m;",
                    f"for (int64_t a = 0; a < {Y}; a++) SIMD",
                    f"for (int64_t j = 0; j < m; j++) v[a * m + j] += {terms}; }}",
                ]
        for c in sorted({n[0] for n in found}):
            own = {n[1]: v for n, v in found.items() if n[0] == c}
            fluxes = {}
            for orders, v in own.items():
                fluxes[orders] = self.array(f"f{o}_{c}_{''.join(map(str, orders))}")
                self.point.lines.append(f"{fluxes[orders]}[0][i] = {self.point.text(v)};")
            rows = dict.fromkeys(n[1:] for n in own)
            for m, z in rows:
                name = self.array(f"q{o}_{c}_{m}{z}", X, zero=True)
                lines["after"].append(
                    f"for (int64_t a = 0; a < {X}; a++) for (int64_t i = 0; i < n; i++) "
                    f"h{o}_{m}{z}[({self.first(i, 0)}[x + i] + a) * {width} + {c}] += {name}[a][i];"
                )
            tables = sorted({n[0] for n in own})
            lines["spread"] += [
                "for (int64_t j = 0; j < W; j += L) {",
                *[f"const V s{''.join(map(str, n))} = AT({f}[0][j]);" for n, f in fluxes.items()],
                f"for (int64_t a = 0; a < {X}; a++) {{",
                *[
                    f"const V w{t} = AT({self.table(i, 0, kind)}[(({t} * QX + cx) * {X} + a) * NP + x + j]);"
                    for t in tables
                ],
                *[
                    f"AT(q{o}_{c}_{m}{z}[a][j]) += "
                    + " + ".join(f"w{n[0]} * s{''.join(map(str, n))}" for n in own if n[1:] == (m, z))
                    + ";"
                    for m, z in rows
                ],
                "} }",
            ]
        terms = " + ".join(f"w{z}[(c * {Z}) + a] * b{o}_{z}[c * l{o} + j]" for z in layers)
        tables = " ".join(f"const T *w{z} = {self.table(i, 2, kind)} + ({z} * NZ + z) * QZ * {Z};" for z in layers)
        if layers:
            lines["back"] += [
                f"{{ {tables} T *v = t{o} + ({self.first(i, 2)}[z] - base{o}) * l{o};",
                f"for (int64_t c = 0; c < QZ; c++) for (int64_t a = 0; a < {Z}; a++) SIMD",
                f"for (int64_t j = 0; j < l{o}; j++) v[a * l{o} + j] += {terms}; }}",
            ]
        count, room = f"dims[{self.family(i) * 3 + 2}]", f"dims[{self.place_of_room(o)}]"
        lines["joined"].append(
            f"join(out[{o}] + b * {count} * {layer}, part[{o}], {self.first(i, 2)}, {count}, {layer}, "
            f"{Z}, {room}, S, H, NZ);"
        )

    def place_of_room(self, o: int) -> int:
        """Where `dims` tells how many layers of functions a portion has room for."""
        return 3 * len(self.loop.families) + o

    # -- as a whole ----------------------------------------------------------------------------------------------------

    @cached_property
    def width(self) -> int:
        """Spans that one loop takes: what it reads and writes stays in the nearest cache, as far as it can."""
        most = NEAREST // (max(self.rows, 1) * self.dtype.itemsize)
        return min(max(most // self.lanes, 1), 8) * self.lanes

    @cached_property
    def function(self) -> CFunction:
        text = inserted(
            c_text("fem.kernels.patches", "patch_loop.c"),
            functions=self.point.declarations,
            reductions=[", ".join(f"{s} = 0" for s in self.sums)],
            sums=[", ".join(self.sums)],
            point=self.point.lines,
            room=[" + ".join(self.room)],
            **self.lines,
        )
        x, y, z = placed(self.loop.points, 1)
        return CFunction(text, True, T=self.dtype, L=self.lanes, W=self.width, QX=x, QY=y, QZ=z, SUMS=len(self.sums))

    @cached_property
    def constants(self) -> Tensor:
        return self.point.constants

    def run(self, data: PatchInputs, results: Sequence[Sequence[Tensor]]) -> Tensor | None:
        """The sums of ψ "b", None if it is not compiled (yet); derivatives are added to `results`."""
        loop, read = self.loop, max(sum(s is not None for s in self.loop.sources), 1)
        if not self.function.ready(DENSE * data.size * data.num_cells * prod(data.points) * read):
            return None
        nx, ny, nz = placed(data.spans, 1)
        height = max(-(-nz // PORTIONS), min(LAYERS, nz))
        portions = -(-nz // height)
        tables, first, dims = self.laid_out(data)
        pairs = [(i, r) for found in results for i, r in zip(loop.wrt, found, strict=True)]
        out, rooms, part = [], [], []
        for i, r in pairs:
            if loop.inputs[i].kind == "constant" and loop.scatters:
                continue
            out.append(r)
            layers = 0
            if loop.inputs[i].kind == "field" and loop.scatters:
                starts = first[loop.families.index(loop.inputs[i].basis) * 3 + 2]
                ends = starts[torch.arange(height, nz + height, height).clamp(max=nz) - 1]
                layers = int((ends - starts[::height]).max()) + self.widths(i)[2]
                layer = r[0].numel() // data.bases[loop.inputs[i].basis].shape[-1]
                part.append(r.new_empty(portions * layers * layer))
            else:
                part.append(r.new_empty(0))
            rooms.append(layers)
        tensors = [t.contiguous() if i.kind == "field" else t for t, i in zip(data.tensors, loop.inputs, strict=True)]
        at = [s for t, i in zip(tensors, loop.inputs, strict=True) for s in strides(t, i.kind)]
        partial = torch.empty(data.size * portions * len(self.sums), dtype=torch.float64, device="cpu")
        sums = torch.zeros(data.size, len(self.sums), dtype=torch.float64, device="cpu")
        dims = [*dims, *rooms]
        failed = self.function(
            *(data.size, nx, ny, nz, portions, height, tensors, at, dims, first, tables, self.constants),
            *(part, out, partial, sums),
        )
        if failed:
            return None
        total, *others = sums.to(self.dtype).unbind(-1)
        entries = [e for i, r in pairs if loop.inputs[i].kind == "constant" and loop.scatters for e in r.unbind(-1)]
        for target, value in zip(entries, others, strict=True):
            target.copy_(value)
        return total

    def laid_out(self, data: PatchInputs) -> tuple[list[Tensor], list[Tensor], list[int]]:
        """Tables of each kind, family and direction, first functions, and numbers of functions."""
        tables, first, dims = [], [], []
        for kind in KINDS if self.loop.scatters else KINDS[:1]:
            for name in self.loop.families:
                tables += data.bases[name].laid_out(kind, self.width, self.dtype)
        one = torch.zeros(1, dtype=torch.int64, device="cpu")
        for name in self.loop.families:
            basis = data.bases[name]
            first += placed(tuple(t.contiguous() for t in basis.first), one)
            dims += placed(basis.shape, 1)
        return tables, first, dims


def combined(target: str, width: int) -> str:
    """t[j] = Σ_a w[a] v[a, j] for rows of m numbers."""
    terms = " + ".join(f"w[{a}] * v[{a} * m + j]" for a in range(width))
    return f"SIMD for (int64_t j = 0; j < m; j++) {target}[j] = {terms};"


def placed(values: Sequence[Any], one: Any) -> tuple[Any, Any, Any]:
    """Per direction as loops have them: along a line, within a layer (nothing on surfaces), across layers."""
    return (values[0], one if len(values) == 2 else values[1], values[-1])


def strides(t: Tensor, kind: str) -> tuple[int, ...]:
    """Of batch, line, span, point and entry, 0 where one serves all."""
    batch, *rest = (step * (n > 1) for step, n in zip(t.stride(), t.shape, strict=True))
    return (batch, *rest[:4]) if kind in ("points", "lines") else (batch, 0, 0, 0, 0)


def generated(loop: PatchLoop, data: PatchInputs) -> PatchSource | None:
    """The loop as C code, if C has what it takes and the tensors are the CPU's."""
    if any(t.device.type != "cpu" or t.dtype != data.like.dtype for t in data.tensors):
        return None
    key = data.like.dtype
    if key not in loop.generated:
        try:
            loop.generated[key] = PatchSource(loop, key)
        except UnsupportedError:
            loop.generated[key] = None
    return loop.generated[key]
