/* A loop over the cells of any mesh; what happens in a cell is written by `source.py` where this text says "insert".

   `T`, `P` (positions), `L` (numbers of a vector), `W` (cells that one loop takes, a multiple of L), `G` (cells of a
   block, a multiple of W) and `SUMS` (sums over all cells, of which the first is the value) are defined before this text.
   B batch items of E cells with Q points each; strides `at` of the inputs are those of batch, cell and point. `order`,
   `bounds` and `group` are those of a `Layout`, and `start`, `node`, `local`, `first` and `place` those of a `Numbering`
   for each map from cells to nodes.

   Each block writes its own sums for its nodes to `part`; then they meet at the nodes, always in the same order.
   Entries of a sparse matrix wait in `part` for `chunk` blocks; then each thread walks over those and adds what belongs
   to its own range of nodes. So results do not depend on threads. */
#ifdef VECTOR_FUNCTIONS
#define VECTOR _Pragma("omp declare simd notinbranch")
#else
#define VECTOR
#endif
#ifdef _OPENMP
int omp_get_thread_num(void);
int omp_get_num_threads(void);
#else
#define omp_get_thread_num() 0
#define omp_get_num_threads() 1
#endif
typedef T V __attribute__((vector_size(L * sizeof(T)), may_alias));
#define ARRAY __attribute__((aligned(L * sizeof(T))))
#define AT(x) (*(V *)&(x))
/* insert functions */

/* Add to nodes from `low` on, below `high`, the C values that each has in some blocks. */
static inline void add(const T *part, const int32_t *first, const int32_t *place, int64_t low, int64_t high, int64_t C,
                       T *out)
{
  for (int64_t n = low; n < high; n++)
    for (int64_t c = 0; c < C; c++) {
      T sum = out[n * C + c];
      for (int32_t j = first[n]; j < first[n + 1]; j++) sum += part[place[j] * C + c];
      out[n * C + c] = sum;
    }
}

/* Add rows of S entries, C for each of A nodes beginning with row R, which go where `position` says. */
static inline void add_rows(const T *part, const int32_t *cell, const int64_t *dofs, const P *position, int64_t cells,
                            int64_t A, int64_t C, int64_t R, int64_t S, int64_t low, int64_t high, T *out)
{
  for (int64_t e = 0; e < cells; e++) {
    const int64_t ahead = cell[e + 8 < cells ? e + 8 : e];  // cells lie anywhere: nobody else knows which comes next
    __builtin_prefetch(dofs + ahead * A);
    for (int64_t m = 0; m < S * S * (int64_t)sizeof(P); m += 64) __builtin_prefetch((const char *)(position + ahead * S * S) + m);
    for (int64_t a = 0; a < A; a++) {
      const int64_t node = dofs[cell[e] * A + a];
      if (node >= low && node < high) {
        const P *p = position + cell[e] * S * S + (R + a * C) * S;
        const T *z = part + e * S * S + (R + a * C) * S;
        for (int64_t m = 0; m < C * S; m++) out[p[m]] += z[m];
      }
    }
  }
}

int run(int64_t B, int64_t E, int64_t Q, int64_t blocks, int64_t chunk, const T *const *in, const int64_t *at,
        const int32_t *order, const int32_t *bounds, const int32_t *group, const int32_t *const *start,
        const int32_t *const *node, const int16_t *const *local, const int32_t *const *first,
        const int32_t *const *place, const int64_t *most, const int64_t *const *dofs, const P *position,
        const T *const *tables, const T *k, T *const *part, T *const *out, const int64_t *to, double *partial,
        double *sums, int64_t threads)
{
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    /* insert room */
    for (int64_t b = 0; b < B; b++)
      for (int64_t low = 0; low < blocks; low += chunk) {
        const int64_t high = blocks - low < chunk ? blocks : low + chunk;
#pragma omp for schedule(dynamic) /* insert nowait */
        for (int64_t block = low; block < high; block++) {
          double *own = partial + (b * blocks + block) * SUMS;
          for (int64_t j = 0; j < SUMS; j++) own[j] = 0;
          /* insert block */
          for (int64_t begin = bounds[block]; begin < bounds[block + 1]; begin += W) {
            const int64_t n = bounds[block + 1] - begin < W ? bounds[block + 1] - begin : W;
            const int64_t lane = begin - bounds[block];
            const int32_t *cell = order + begin;
            T /* insert reductions */;
            /* insert before */
            /* insert head */
            for (int64_t q = 0; q < Q; q++) {
              /* insert tables */
              /* insert interpolation */
#pragma omp simd reduction(+ : /* insert sums */)
              for (int64_t i = 0; i < n; i++) {
                /* insert point */
              }
              /* insert spread */
            }
            /* insert end */
            /* insert after */
          }
        }
        /* insert scatter */
      }
  }
  for (int64_t b = 0; b < B; b++)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t j = 0; j < SUMS; j++) sums[b * SUMS + j] += partial[(b * blocks + block) * SUMS + j];
  return 0;
}
