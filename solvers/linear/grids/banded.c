/* Cholesky's factors of symmetric band matrices, and solves with them: one item after another, for the coarsest level.

   `T` is defined before this text. Row i of the band holds A(i, i), …, A(i, i + w), in double precision, and in the end
   the pivot's reciprocal 1 / d(i) and U(i, i + 1), …, where A = Uᵀ D⁻¹ U with U(i, i) = d(i). */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Row r less its part along the row k places before it, for columns from r on. */
static inline void one(double *row, const double *band, int64_t w, int64_t r, int64_t p)
{
  const double *a = band + p * (w + 1) + (r - p), f = a[0] * band[p * (w + 1)];
#pragma omp simd
  for (int64_t c = 0; c <= w - (r - p); c++) row[c] -= f * a[c];
}

/* Pivots that are too small, or negative, become the diagonal entry: factors are definite, and those of a matrix that
   does not see constants hold one unknown more. */
static void factorise(double *band, int64_t n, int64_t w, double least)
{
  for (int64_t r = 0; r < n; r++) {
    double *row = band + r * (w + 1);
    const double diagonal = fabs(row[0]);
    int64_t p = r > w ? r - w : 0;
    for (; p + 3 < r; p += 4) { /* four rows at a time, as far as the first of them goes */
      const double *a = band + p * (w + 1) + (r - p), *b = a + w, *c = b + w, *d = c + w;
      const double *q = band + p * (w + 1);
      const double f = a[0] * q[0], g = b[0] * q[w + 1], h = c[0] * q[2 * (w + 1)], k = d[0] * q[3 * (w + 1)];
      const int64_t m = w - (r - p) + 1;
#pragma omp simd
      for (int64_t i = 0; i < m; i++) row[i] -= f * a[i] + g * b[i] + h * c[i] + k * d[i];
      row[m] -= g * b[m] + h * c[m] + k * d[m];
      row[m + 1] -= h * c[m + 1] + k * d[m + 1];
      row[m + 2] -= k * d[m + 2];
    }
    for (; p < r; p++) one(row, band, w, r, p);
    row[0] = row[0] > least * diagonal ? 1 / row[0] : diagonal > 0 ? 1 / diagonal : 1;
  }
}

/* x with A x = b, unknown i of the band being the one at order[i]; y has room for n + w numbers. */
static void solve(const double *band, int64_t n, int64_t w, const int64_t *order, const T *b, T *x, double *y)
{
  for (int64_t i = 0; i < n + w; i++) y[i] = i < n ? b[order[i]] : 0;
  for (int64_t i = 0; i < n; i++) {
    const double *row = band + i * (w + 1), f = y[i] *= row[0];
#pragma omp simd
    for (int64_t c = 1; c <= w; c++) y[i + c] -= f * row[c];
  }
  for (int64_t i = n - 1; i >= 0; i--) {
    const double *row = band + i * (w + 1);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 1; c <= w; c++) sum += row[c] * y[i + c];
    y[i] -= row[0] * sum;
    x[order[i]] = (T)y[i];
  }
}

/* Factors of all items, or solves where there is a right-hand side; how many had no room for it. */
int run(int64_t items, int64_t n, int64_t w, double *band, double least, const int64_t *order, const T *b,
        T *x, int64_t threads)
{
  int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : failed)
  for (int64_t k = 0; k < items; k++) {
    double *own = band + k * n * (w + 1), *room = b ? malloc((n + w) * sizeof(double)) : 0;
    if (b && !room) failed += 1;
    else if (b) solve(own, n, w, order, b + k * n, x + k * n, room);
    else factorise(own, n, w, least);
    free(room);
  }
  return failed;
}
