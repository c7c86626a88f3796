"""Products with stencils as C: every entry in one go, where PyTorch takes one pass over memory for each coupling."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from fem.kernels.c_source import TYPES, array
from fem.support.native import native

GROUP = 9  # couplings added in one loop: processors do not follow many more streams

SOURCE = """
#include <stdint.h>
typedef {real} T;
enum {{ W = 2048 }};

/* y[i] += the sum over k of S[s[k] + i] x[d[k] + i], or −= for residuals; the first time y starts from 0, or from b */
static void add(int64_t count, int first, int residual, int64_t low, int64_t high, const T *restrict S,
                const T *restrict x, const T *b, T *y, const int64_t *s, const int64_t *d)
{{
  const T sign = residual ? -1 : 1, own = first && !residual ? 0 : 1;
  const T *from = first && residual ? b : y;
  switch (count) {{
{cases}
  }}
}}

void run(int64_t n, int64_t types, const T *S, const T *x, const T *b, int64_t mb, T *y, int64_t my,
         const int64_t *counts, const int64_t *s, const int64_t *d, int64_t threads)
{{
#pragma omp parallel for schedule(static) num_threads(threads) if(n > W)
  for (int64_t low = 0; low < n; low += W)
    for (int64_t a = 0, start = 0; a < types; start += counts[a++])
      for (int64_t k = start, end = start + counts[a]; k < end; k += {group})
        add(end - k < {group} ? end - k : {group}, k == start, b != 0, low, low + W < n ? low + W : n, S, x,
            b + a * mb, y + a * my, s + k, d + k);
}}
"""


@cache
def source(dtype: torch.dtype) -> str:
    cases = []
    for count in range(1, GROUP + 1):
        total = " + ".join(f"S[s{k} + i] * x[d{k} + i]" for k in range(count))
        shifts = ", ".join(f"s{k} = s[{k}], d{k} = d[{k}]" for k in range(count))
        loop = "#pragma omp simd\nfor (int64_t i = low; i < high; i++)"
        cases.append(
            f"case {count}: {{ const int64_t {shifts};\nif (own == 0)\n{loop} y[i] = {total};\n"
            f"else\n{loop} y[i] = from[i] + sign * ({total});\nbreak; }}"
        )
    return SOURCE.format(real=TYPES[dtype], cases="\n".join(cases), group=GROUP)


class CompiledProduct:
    """y = A x or y = b − A x between buffers with halos, where C code serves: calls tell whether it did.

    Args:
        terms: for each type of dofs what is added: (row of the data, shift there, type of x, shift there).
    """

    def __init__(self, terms: list[list[tuple[int, int, int, int]]], halo: int, data: Tensor, x: Tensor, y: Tensor):
        self.usable = y.device.type == "cpu" and y.dtype in TYPES
        if not self.usable:
            return
        m = y.shape[1]
        assert data.stride() == x.stride() == y.stride() == (m, 1)
        self.kept, self.source, self.work = (data, x, y), source(y.dtype), data.numel()
        flat = [t for row in terms for t in row]
        start = [ctypes.c_void_p(t.data_ptr() + halo * t.element_size()) for t in (data, x, y)]
        self.before = (ctypes.c_int64(m - 2 * halo), ctypes.c_int64(len(terms)), *start[:2])
        lists = ([len(row) for row in terms], [k * m + s for k, s, _, _ in flat], [c * m + d for _, _, c, d in flat])
        self.after = (start[2], ctypes.c_int64(m), *[array(ctypes.c_int64, values) for values in lists])

    def __call__(self, b: Tensor | None = None) -> bool:
        run = native(self.source, self.work) if self.usable else None
        if run is None or (b is not None and b.stride(-1) != 1):
            return False
        given = (None, 0) if b is None else (b.data_ptr(), b.stride(0))
        threads = ctypes.c_int64(torch.get_num_threads())
        run(*self.before, ctypes.c_void_p(given[0]), ctypes.c_int64(given[1]), *self.after, threads)
        return True
