/* Sums of products over boxes of the coarse grid: Galerkin products, restriction, interpolation with weights of their own.

   `T` is defined before this text. Term g adds factor[g] A[I] B[I] C[I] to target[I] for all I from low[g] to high[g],
   where an entry of X lies at xs[g] + I · x; without C the product is A B. Places J of the target are worked on one row
   after another, so that each is written by one thread, term after term: its term has I = J - lag[g]. */
#include <stdint.h>

static inline __attribute__((always_inline)) void
row(const int64_t t, const int64_t a, const int64_t b, const int with_c, int64_t n, T factor, T *target, const T *A,
    const T *B, const T *C)
{
#pragma omp simd
  for (int64_t i = 0; i < n; i++) target[t * i] += with_c ? factor * A[a * i] * (B[b * i] * C[b * i]) : A[a * i] * B[b * i];
}

/* Axes 0 and 1 are those of rows, axis 2 is that along them; strides t, a, b of the target, of A, and of B (and C). */
int run(int64_t terms, int64_t batch, int64_t n0, int64_t n1, const int64_t *low, const int64_t *high,
        const int64_t *lag, const double *factor, T *target, const int64_t *ts, const int64_t *t, int64_t tb, const T *A,
        const int64_t *as, const int64_t *a, int64_t ab, const T *B, const int64_t *bs, const int64_t *b, int64_t bb,
        const T *C, const int64_t *cs, int64_t threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t item = 0; item < batch; item++)
    for (int64_t J = 0; J < n0; J++)
      for (int64_t K = 0; K < n1; K++)
        for (int64_t g = 0; g < terms; g++) {
          const int64_t *l = low + 3 * g, *h = high + 3 * g, i = J - lag[2 * g], k = K - lag[2 * g + 1], n = h[2] - l[2];
          if (i < l[0] || i >= h[0] || k < l[1] || k >= h[1]) continue;
          T *y = target + ts[g] + item * tb + i * t[0] + k * t[1] + l[2] * t[2];
          const T *p = A + as[g] + item * ab + i * a[0] + k * a[1] + l[2] * a[2];
          const int64_t place = item * bb + i * b[0] + k * b[1] + l[2] * b[2];
          const T *q = B + bs[g] + place, *r = C ? C + cs[g] + place : 0;
          const T f = (T)factor[g];
          if (C && a[2] == 2) row(1, 2, 1, 1, n, f, y, p, q, r);
          else if (C) row(1, 1, 1, 1, n, f, y, p, q, r);
          else if (t[2] == 2) row(2, 1, 1, 0, n, f, y, p, q, r);
          else if (b[2] == 2) row(1, 1, 2, 0, n, f, y, p, q, r);
          else row(1, 1, 1, 0, n, f, y, p, q, r);
        }
  return 0;
}
