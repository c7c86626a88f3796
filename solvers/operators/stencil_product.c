/* y = A x or y = b - A x for a stencil A: every entry in one go, where separate passes read y again for each coupling.

   `T` is defined before this text. Images have halos of zeros at both ends; type `a` of dofs gets counts[a] terms
   S[s + i] x[d + i], with places s and d of the first entry of an image. */
#include <stdint.h>

enum { W = 2048, GROUP = 9 }; /* entries at a time; couplings in one loop: processors follow no more streams */

/* y[i] = from[i] + sign * the sum over k < count of S[s[k] + i] x[d[k] + i]; without `from`, y[i] = the sum */
static inline __attribute__((always_inline)) void
add(const int count, int64_t low, int64_t high, const T *S, const T *x, const T *from, T sign, T *y, const int64_t *s,
    const int64_t *d)
{
#define TERM(k) (S[s[k] + i] * x[d[k] + i])
#define SUM \
  T sum = TERM(0); \
  if (count > 1) sum += TERM(1); \
  if (count > 2) sum += TERM(2); \
  if (count > 3) sum += TERM(3); \
  if (count > 4) sum += TERM(4); \
  if (count > 5) sum += TERM(5); \
  if (count > 6) sum += TERM(6); \
  if (count > 7) sum += TERM(7); \
  if (count > 8) sum += TERM(8)
  if (from) {
#pragma omp simd
    for (int64_t i = low; i < high; i++) { SUM; y[i] = from[i] + sign * sum; }
  } else {
#pragma omp simd
    for (int64_t i = low; i < high; i++) { SUM; y[i] = sum; }
  }
}

/* One loop for each number of terms. */
static void add_group(int64_t count, int64_t low, int64_t high, const T *restrict S, const T *restrict x, const T *from,
                      T sign, T *y, const int64_t *restrict s, const int64_t *restrict d)
{
  switch (count) {
  case 1: add(1, low, high, S, x, from, sign, y, s, d); break;
  case 2: add(2, low, high, S, x, from, sign, y, s, d); break;
  case 3: add(3, low, high, S, x, from, sign, y, s, d); break;
  case 4: add(4, low, high, S, x, from, sign, y, s, d); break;
  case 5: add(5, low, high, S, x, from, sign, y, s, d); break;
  case 6: add(6, low, high, S, x, from, sign, y, s, d); break;
  case 7: add(7, low, high, S, x, from, sign, y, s, d); break;
  case 8: add(8, low, high, S, x, from, sign, y, s, d); break;
  default: add(GROUP, low, high, S, x, from, sign, y, s, d);
  }
}

/* n entries of each image, `m` places apart in x and y and `mb` in b, if that is there; `halo` zeros before them */
int run(int64_t n, int64_t m, int64_t halo, int64_t types, const int64_t *counts, const int64_t *s, const int64_t *d,
        const T *S, const T *x, T *y, const T *const *b, int64_t mb, int64_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if(n > W)
  for (int64_t low = 0; low < n; low += W) {
    const int64_t high = low + W < n ? low + W : n;
    for (int64_t a = 0, start = 0; a < types; start += counts[a++]) {
      T *row = y + halo + a * m;
      const T *given = *b ? *b + a * mb : 0;
      for (int64_t k = start, end = start + counts[a]; k < end; k += GROUP)
        add_group(end - k < GROUP ? end - k : GROUP, low, high, S, x, k == start ? given : row, *b ? -1 : 1, row, s + k,
                  d + k);
    }
  }
  return 0;
}
