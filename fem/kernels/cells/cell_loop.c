/* A loop over the cells of any mesh; what happens in a cell is written by `source.py` where this text says "insert".

   `T`, `P` (positions), `L` (numbers of a vector), `W` (cells that one loop takes, a multiple of L) and `SUMS` (sums over
   all cells, of which the first is the value) are defined before this text. B batch items of E cells with Q points each; strides `at` of the inputs are those of
   batch, cell and point. Cells are taken in chunks: what they send to nodes, or to entries of a sparse matrix, waits in
   `part` until the whole chunk is done. Then each thread walks over it in the order of the cells and adds what belongs to
   its own range of nodes, so that results do not depend on threads. */
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

/* Add C values at each of the A nodes of some cells to nodes from `low` on, below `high`. */
static inline void add(const T *part, const int64_t *dofs, int64_t cells, int64_t A, int64_t C, int64_t low,
                       int64_t high, T *out)
{
  for (int64_t e = 0; e < cells; e++)
    for (int64_t a = 0; a < A; a++) {
      const int64_t node = dofs[e * A + a];
      if (node >= low && node < high)
        for (int64_t c = 0; c < C; c++) out[node * C + c] += part[(e * A + a) * C + c];
    }
}

/* The same for rows of A · C entries each, which go where `position` says. */
static inline void add_rows(const T *part, const int64_t *dofs, const P *position, int64_t cells, int64_t A, int64_t C,
                            int64_t low, int64_t high, T *out)
{
  for (int64_t e = 0; e < cells; e++)
    for (int64_t a = 0; a < A; a++) {
      const int64_t node = dofs[e * A + a], first = (e * A + a) * C * A * C;
      if (node >= low && node < high)
        for (int64_t m = first; m < first + C * A * C; m++) out[position[m]] += part[m];
    }
}

int run(int64_t B, int64_t E, int64_t Q, int64_t chunk, const T *const *in, const int64_t *at,
        const int64_t *const *dofs, const P *position, const T *const *tables, const T *k, T *const *part,
        T *const *out, const int64_t *to, double *partial, double *sums, int64_t threads)
{
  const int64_t blocks = (E + W - 1) / W;
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    for (int64_t b = 0; b < B; b++)
      for (int64_t low = 0; low < E; low += chunk) {
        const int64_t high = E - low < chunk ? E : low + chunk;
#pragma omp for schedule(static)
        for (int64_t first = low; first < high; first += W) {
          const int64_t n = high - first < W ? high - first : W;
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
          double *own = partial + (b * blocks + first / W) * SUMS;
          /* insert after */
        }
        /* insert scatter */
#pragma omp barrier
      }
  }
  for (int64_t b = 0; b < B; b++)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t j = 0; j < SUMS; j++) sums[b * SUMS + j] += partial[(b * blocks + block) * SUMS + j];
  return 0;
}
