"""Galerkin products, restriction and interpolation along one axis as C: one pass over memory instead of a dozen."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fem.kernels.c_source import TYPES, array
from fem.support.native import native

# Images are "outer n inner" along an axis of n vertices, m of them odd; the coarse axis has m + 1 vertices, and where
# the last of them is no even vertex it is the odd one before. `at` is the place of the even vertex of coarse vertex I.
PORTION = 4096  # entries of one unit of work, at least
FORMULAS = {
    "minus": "target[to] = lb * A[at] + rb * (A[at - {s}] + lb * B[at - {s}]);",
    "plus": "target[to] = r * C[at] + l * (C[at + {s}] + r * B[at + {s}]);",
    "centre": "target[to] = B[at] + l * (C[at] + A[at + {s}] + l * B[at + {s}])"
    " + rb * (A[at] + C[at - {s}] + rb * B[at - {s}]);",
    "restricted": "target[to] = A[at] + l * A[at + {s}] + rb * A[at - {s}];",
    "interpolated": "A[at] += target[to]; A[at + {s}] += l * target[to] + r * target[to + {s}];",
}
EDGES = {
    "minus": "if (before) target[to] = rb * (A[at - {s}] + lb * B[at - {s}]) + (here ? lb * A[at] : 0);",
    "plus": "if (next) target[to] = r * C[at] + l * (C[at + {s}] + r * B[at + {s}]);",
    "centre": "target[to] = (here ? B[at] : 0) + (next ? l * (C[at] + A[at + {s}] + l * B[at + {s}]) : 0)"
    " + (before ? rb * (C[at - {s}] + rb * B[at - {s}] + (here ? A[at] : 0)) : 0);",
    "restricted": "target[to] = (here ? A[at] : 0) + (next ? l * A[at + {s}] : 0) + (before ? rb * A[at - {s}] : 0);",
    "interpolated": "if (here) A[at] += target[to]; if (next) A[at + {s}] += l * target[to] + r * target[to + {s}];",
}
HEAD = """
#include <stdint.h>
typedef {real} T;
#define WEIGHTS \\
  const T l = I < m ? left[I] : 0, r = I < m ? right[I] : 0, lb = I ? left[I - 1] : 0, rb = I ? right[I - 1] : 0;
"""
FUNCTION = """
static void {name}(T *A, const T *B, const T *C, T *target, const T *left, const T *right, int64_t outer, int64_t n,
                   int64_t s, int64_t low, int64_t high)
{{
  const int64_t m = n / 2, even = n - m, start = low > 1 ? low : 1, end = high < m ? high : m;
  for (int64_t o = 0; o < outer; o++) {{
    if (s == 1) {{
#pragma omp simd
      for (int64_t I = start; I < end; I++) {{
        const int64_t at = o * n + 2 * I, to = o * (m + 1) + I;
        const T l = left[I], r = right[I], lb = left[I - 1], rb = right[I - 1];
        {line}
      }}
    }} else
      for (int64_t I = start; I < end; I++) {{
        WEIGHTS
#pragma omp simd
        for (int64_t i = 0; i < s; i++) {{
          const int64_t at = (o * n + 2 * I) * s + i, to = (o * (m + 1) + I) * s + i;
          {plane}
        }}
      }}
    for (int64_t I = 0; I <= m; I += m) {{
      if (I < low || I >= high) continue;
      const int here = I < even, next = I < m, before = I > 0;
      WEIGHTS
      for (int64_t i = 0; i < s; i++) {{
        const int64_t at = (o * n + 2 * I) * s + i, to = (o * (m + 1) + I) * s + i;
        {edge}
      }}
    }}
  }}
}}
"""
RUN = """
/* kind[g] tells what is done with one group of images, portion by portion of the outer axes and of the axis */
void run(int64_t groups, const int64_t *kind, T *const *A, const T *const *B, const T *const *C, T *const *target,
         const T *left, const T *right, int64_t outer, int64_t n, int64_t s, int64_t portions,
         int64_t parts, int64_t threads)
{{
  const int64_t m = n / 2;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t g = 0; g < groups; g++)
    for (int64_t k = 0; k < portions * parts; k++) {{
      const int64_t p = k / parts, q = k % parts, first = outer * p / portions;
      const int64_t count = outer * (p + 1) / portions - first, a = first * n * s, c = first * (m + 1) * s;
      const int64_t low = (m + 1) * q / parts, high = (m + 1) * (q + 1) / parts;
      switch (kind[g]) {{
{cases}
      }}
    }}
}}
"""


@cache
def source(dtype: torch.dtype) -> str:
    functions = [
        FUNCTION.format(name=name, line=text.format(s="1"), plane=text.format(s="s"), edge=EDGES[name].format(s="s"))
        for name, text in FORMULAS.items()
    ]
    cases = [
        f"case {k}: {name}(A[g] + a, B[g] + a, C[g] + a, target[g] + c, left, right, count, n, s, low, high); break;"
        for k, name in enumerate(FORMULAS)
    ]
    return HEAD.format(real=TYPES[dtype]) + "".join(functions) + RUN.format(cases="\n".join(cases))


class Axis:
    """What happens along one axis: `outer` images of n vertices, `inner` entries apart.

    left, right: for each odd vertex the weights of its neighbours.
    """

    def __init__(self, left: Tensor, right: Tensor, outer: int, n: int, inner: int):
        self.weights, self.usable = (left.contiguous(), right.contiguous()), left.device.type == "cpu"
        self.usable &= left.dtype in TYPES and n > 2
        self.work, self.dtype = outer * n * inner, left.dtype
        portions = max(min(outer, self.work // PORTION), 1)
        parts = max(min(n // 2, self.work // (PORTION * portions), 16 // portions), 1)
        self.after = [ctypes.c_void_p(w.data_ptr()) for w in self.weights]
        self.after += [ctypes.c_int64(v) for v in (outer, n, inner, portions, parts)]

    def bind(self, kept: Sequence[Tensor], groups: Sequence[tuple[str, int, int, int, int]]) -> "Bound":
        """For each group what is done, with which images A, B, C, and into which (or from which) coarse one.

        Images are addresses in the tensors that are kept.
        """
        return Bound(self, kept, groups)


class Bound:
    """Work on some images; calls tell whether C code did it."""

    def __init__(self, axis: Axis, kept: Sequence[Tensor], groups: Sequence[tuple[str, int, int, int, int]]):
        self.axis, self.kept, self.work = axis, kept, axis.work * len(groups)
        if axis.usable:
            names, *images = zip(*groups, strict=True)
            self.source, kinds = source(axis.dtype), [list(FORMULAS).index(name) for name in names]
            self.arguments: list[Any] = [ctypes.c_int64(len(groups)), array(ctypes.c_int64, kinds)]
            self.arguments += [array(ctypes.c_void_p, i) for i in images]

    def __call__(self) -> bool:
        run = native(self.source, self.work) if self.axis.usable else None
        if run is None:
            return False
        run(*self.arguments, *self.axis.after, ctypes.c_int64(torch.get_num_threads()))
        return True
