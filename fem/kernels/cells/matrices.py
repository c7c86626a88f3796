"""Element matrices as C code, from second derivatives at the points of a cell."""

from math import prod
from typing import Any

from fem.kernels.c_operations import UnsupportedError, Value

LARGEST = 2**19  # bytes of the element matrices of as many cells as a vector has numbers


def write_matrix(source: Any, outputs: list[Value]) -> None:
    """K_AB = Σ_q Σ_st C_st w[s, A] w[t, B] with A = (a, c), field after field; its mirror image where it is symmetric.

    Args:
        source: a `CellSource` of a loop with columns.
        outputs: C_st, row by row.

    Raises:
        UnsupportedError: element matrices too large for the caches.
    """
    loop = source.loop
    fields = {i: (loop.basis(i), prod(loop.inputs[i].shape)) for i in (*loop.wrt, *loop.columns)}
    starts, size = {}, 0
    for own in (loop.wrt, loop.columns):
        size = 0
        for i in own:
            starts[i], size = size, size + source.sizes[fields[i][0]] * fields[i][1]
    if size**2 * source.lanes * source.dtype.itemsize > LARGEST:
        raise UnsupportedError
    mirrored = loop.wrt == loop.columns and len(loop.wrt) == 1
    source.before.append(f"T K[{size * size}][W] ARRAY = {{{{0}}}};")
    rows, columns = loop.slots_of(loop.wrt), loop.slots_of(loop.columns)
    is_steady = lambda slot: source.steady[fields[slot[0]][0]][slot[2]]  # noqa: E731
    for steady, target in ((False, source.spread), (True, source.end)):
        arrays: dict[Value, str] = {}
        found: dict[tuple[int, int], str] = {}
        for place, value in enumerate(outputs):
            m, n = divmod(place, len(columns))
            if value != 0 and (is_steady(rows[m]) and is_steady(columns[n])) == steady:
                if value not in arrays:
                    arrays[value] = source.kept(f"c{int(steady)}_{len(arrays)}", value, steady)
                found[m, n] = arrays[value]
        for i in loop.wrt:
            for j in loop.columns:
                for c in range(fields[j][1]):
                    first = [(m, s) for m, s in enumerate(rows) if s[0] == i]
                    second = [(n, s) for n, s in enumerate(columns) if s[0] == j and s[1] == c]
                    place = (starts[i], starts[j] + c, size)
                    target += products(source, fields[i], fields[j], place, first, second, found, mirrored)
    source.parts.append((None, size * size))
    limit = f"A < (B / {fields[loop.wrt[0]][1]} + 1) * {fields[loop.wrt[0]][1]}" if mirrored else f"A < {size}"
    mirror = f"z[B * {size} + A] = " if mirrored else ""
    source.after += [
        f"T *z = part[0] + (((block - low) * G) + lane) * {size * size};",
        f"for (int64_t i = 0; i < n; i++, z += {size * size})",
        f"for (int64_t B = 0; B < {size}; B++) for (int64_t A = 0; {limit}; A++)",
        f"z[A * {size} + B] = {mirror}K[B * {size} + A][i];",
    ]
    for number, i in enumerate(loop.wrt):
        t, width = fields[i]
        source.scatter += [
            "for (int64_t block = low; block < high; block++)",
            f"add_rows(part[0] + (block - low) * G * {size * size}, order + bounds[block], dofs[{t}], position, "
            f"bounds[block + 1] - bounds[block], {source.sizes[t]}, {width}, {starts[i]}, {size}, "
            f"to[{1 + number}] * t / all, to[{1 + number}] * (t + 1) / all, out[0] + b * to[0]);",
        ]


def products(
    source: Any,
    row: tuple[int, int],
    column: tuple[int, int],
    place: tuple[int, int, int],
    rows: list[tuple[int, tuple[int, int, int]]],
    columns: list[tuple[int, tuple[int, int, int]]],
    found: dict[tuple[int, int], str],
    mirrored: bool,
) -> list[str]:
    """The columns B = (b, c) of one component c: g_s = Σ_t C_st w[t, b], then K_AB += Σ_s w[s, a] g_s.

    Args:
        row, column: table and number of components of a field.
        place: the first row, the first column and the size of the matrix.
        rows, columns: those slots of the program that belong here, with their numbers.
    """
    (t, width), (u, step), (start, begin, size) = row, column, place
    a, b, sums, lines = source.sizes[t], source.sizes[u], list[str](), dict[int, list[str]]()
    for m, (_, c, s) in rows:
        terms = [f"AT({found[m, n]}[0][j]) * w{u}[{r * b} + b]" for n, (_, _, r) in columns if (m, n) in found]
        if terms:
            sums.append(f"const V g{m} = {' + '.join(terms)};")
            lines.setdefault(c, []).append(f"w{t}[{s * a} + a] * g{m}")
    if not sums:
        return []
    at = f"({begin} + b * {step}) * {size} + {start} + a * {width}"
    return [
        f"for (int64_t b = 0; b < {b}; b++) for (int64_t j = 0; j < W; j += L) {{",
        *sums,
        f"for (int64_t a = 0; a {'<= b' if mirrored else f'< {a}'}; a++) {{",
        *[f"AT(K[{at} + {c}][j]) += {' + '.join(terms)};" for c, terms in lines.items()],
        "} }",
    ]
