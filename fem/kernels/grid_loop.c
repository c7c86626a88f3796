/* A loop over the cells of a grid; what happens in a cell is written by `c_source.py` where this text says "insert".

   `T`, `W` (cells of a row that one loop takes) and `SUMS` (sums over all cells, of which the first is the value) are
   defined before this text. There are B batch items of L layers of M lines of N cells; layers are cut into S portions,
   a unit of work each, and `first` is the number of the first layer in the whole grid. Strides of each tensor are those
   of batch, layer, line, cell, entry and point: `at` of the inputs, `to` of the outputs. What a portion sends to the layer
   of nodes that begins the next one waits in `halo` until all are done, so that results do not depend on threads. */
#ifdef VECTOR_FUNCTIONS
#define VECTOR _Pragma("omp declare simd notinbranch")
#else
#define VECTOR
#endif
/* insert functions */

int run(int64_t B, int64_t L, int64_t M, int64_t N, int64_t S, int64_t first, const T *const *in, const int64_t *at,
        T *const *out, const int64_t *to, T *const *halo, const T *k, double *totals, int64_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t unit = 0; unit < B * S; unit++) {
    const int64_t b = unit / S, s = unit % S, low = L * s / S, high = L * (s + 1) / S;
    double sums[SUMS] = {0};
    /* insert constants */
    for (int64_t l = low; l < high; l++)
      for (int64_t m = 0; m < M; m++)
        for (int64_t start = 0; start < N; start += W) {
          const int64_t n = N - start < W ? N - start : W;
          /* insert before */
#pragma omp simd reduction(+ : /* insert reductions */)
          for (int64_t i = 0; i < n; i++) {
            /* insert cell */
          }
          /* insert after */
        }
    for (int j = 0; j < SUMS; j++) totals[unit * SUMS + j] = sums[j];
  }
  if (HALOS) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t unit = 0; unit < B * S; unit++) {
      const int64_t b = unit / S, s = unit % S, high = L * (s + 1) / S;
      if (s + 1 == S) continue;
      /* insert halos */
    }
  }
  return 0;
}
