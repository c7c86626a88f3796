/* Galerkin products, restriction and interpolation along one axis: one pass over memory instead of a dozen.

   `T` is defined before this text. Images are "outer n s": n vertices along the axis, s entries apart, m of them odd. The
   coarse axis has m + 1 vertices; where the last of them is no even vertex it is the odd one before. Odd vertex I gets
   left[I] of coarse vertex I and right[I] of the next one. */
#include <stdint.h>

enum { MINUS, PLUS, CENTRE, RESTRICTED, INTERPOLATED };

typedef struct { T l, r, lb, rb; } Weights; /* left and right of the odd vertex after coarse vertex I, and before it */

/* One entry: `at` is the place of the even vertex of coarse vertex I, `to` its own. All its neighbours are there. */
static inline __attribute__((always_inline)) void
inside(const int kind, T *A, const T *B, const T *C, T *target, int64_t at, int64_t to, const int64_t s, const Weights w)
{
  if (kind == MINUS) target[to] = w.lb * A[at] + w.rb * (A[at - s] + w.lb * B[at - s]);
  if (kind == PLUS) target[to] = w.r * C[at] + w.l * (C[at + s] + w.r * B[at + s]);
  if (kind == CENTRE)
    target[to] = B[at] + w.l * (C[at] + A[at + s] + w.l * B[at + s]) + w.rb * (A[at] + C[at - s] + w.rb * B[at - s]);
  if (kind == RESTRICTED) target[to] = A[at] + w.l * A[at + s] + w.rb * A[at - s];
  if (kind == INTERPOLATED) {
    A[at] += target[to];
    A[at + s] += w.l * target[to] + w.r * target[to + s];
  }
}

/* The same where some vertices may be missing: the even one, the odd one after it, or the one before. */
static inline __attribute__((always_inline)) void
at_end(const int kind, T *A, const T *B, const T *C, T *target, int64_t at, int64_t to, int64_t s, const Weights w,
       int here, int next, int before)
{
  if (kind == MINUS && before) target[to] = w.rb * (A[at - s] + w.lb * B[at - s]) + (here ? w.lb * A[at] : 0);
  if (kind == PLUS && next) target[to] = w.r * C[at] + w.l * (C[at + s] + w.r * B[at + s]);
  if (kind == CENTRE)
    target[to] = (here ? B[at] : 0) + (next ? w.l * (C[at] + A[at + s] + w.l * B[at + s]) : 0) +
                 (before ? w.rb * (C[at - s] + w.rb * B[at - s] + (here ? A[at] : 0)) : 0);
  if (kind == RESTRICTED)
    target[to] = (here ? A[at] : 0) + (next ? w.l * A[at + s] : 0) + (before ? w.rb * A[at - s] : 0);
  if (kind == INTERPOLATED) {
    if (here) A[at] += target[to];
    if (next) A[at + s] += w.l * target[to] + w.r * target[to + s];
  }
}

/* Coarse vertices low <= I < high of all lines. */
static inline __attribute__((always_inline)) void
along(const int kind, T *A, const T *B, const T *C, T *target, const T *left, const T *right, int64_t outer, int64_t n,
      int64_t s, int64_t low, int64_t high)
{
  const int64_t m = n / 2, even = n - m, start = low > 1 ? low : 1, end = high < m ? high : m;
  for (int64_t o = 0; o < outer; o++) {
    if (s == 1) {
#pragma omp simd
      for (int64_t I = start; I < end; I++) {
        const Weights w = {left[I], right[I], left[I - 1], right[I - 1]};
        inside(kind, A, B, C, target, o * n + 2 * I, o * (m + 1) + I, 1, w);
      }
    } else
      for (int64_t I = start; I < end; I++) {
        const Weights w = {left[I], right[I], left[I - 1], right[I - 1]};
        const int64_t at = (o * n + 2 * I) * s, to = (o * (m + 1) + I) * s;
#pragma omp simd
        for (int64_t i = 0; i < s; i++) inside(kind, A, B, C, target, at + i, to + i, s, w);
      }
    for (int64_t I = 0; I <= m; I += m) { /* the first and the last */
      if (I < low || I >= high) continue;
      const int here = I < even, next = I < m, before = I > 0;
      const Weights w = {next ? left[I] : 0, next ? right[I] : 0, before ? left[I - 1] : 0, before ? right[I - 1] : 0};
      const int64_t at = (o * n + 2 * I) * s, to = (o * (m + 1) + I) * s;
      for (int64_t i = 0; i < s; i++) at_end(kind, A, B, C, target, at + i, to + i, s, w, here, next, before);
    }
  }
}

/* One loop for each kind. */
#define ALONG(name, kind) \
  static void name(T *A, const T *B, const T *C, T *target, const T *left, const T *right, int64_t outer, int64_t n, \
                   int64_t s, int64_t low, int64_t high) \
  { \
    along(kind, A, B, C, target, left, right, outer, n, s, low, high); \
  }
ALONG(minus, MINUS)
ALONG(plus, PLUS)
ALONG(centre, CENTRE)
ALONG(restricted, RESTRICTED)
ALONG(interpolated, INTERPOLATED)

/* What is done, kind[g], with images of the fine grid that begin at a[g], b[g] and c[g], and one of the coarse grid at
   t[g]: in portions of the outer axes, and of the axis in parts. */
int run(int64_t n, int64_t s, int64_t outer, int64_t portions, int64_t parts, const T *left, const T *right,
        int64_t groups, const int64_t *kind, T *fine, T *coarse, const int64_t *a, const int64_t *b, const int64_t *c,
        const int64_t *t, int64_t threads)
{
  const int64_t m = n / 2;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t g = 0; g < groups; g++)
    for (int64_t k = 0; k < portions * parts; k++) {
      const int64_t p = k / parts, q = k % parts, first = outer * p / portions, count = outer * (p + 1) / portions - first;
      const int64_t low = (m + 1) * q / parts, high = (m + 1) * (q + 1) / parts;
      T *A = fine + a[g] + first * n * s, *B = fine + b[g] + first * n * s, *C = fine + c[g] + first * n * s;
      T *target = coarse + t[g] + first * (m + 1) * s;
      switch (kind[g]) {
      case MINUS: minus(A, B, C, target, left, right, count, n, s, low, high); break;
      case PLUS: plus(A, B, C, target, left, right, count, n, s, low, high); break;
      case CENTRE: centre(A, B, C, target, left, right, count, n, s, low, high); break;
      case RESTRICTED: restricted(A, B, C, target, left, right, count, n, s, low, high); break;
      default: interpolated(A, B, C, target, left, right, count, n, s, low, high);
      }
    }
  return 0;
}
