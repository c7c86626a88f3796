/* A loop over the spans of a patch of splines; what happens is written by `source.py` where this text says "insert".

   `T`, `L` (numbers of a vector), `W` (spans that one loop takes, a multiple of L), `QX`, `QY`, `QZ` (points of a span per
   direction) and `SUMS` are defined before this text. NZ layers of NY lines of NX spans; surfaces have one line in a layer.
   Fields are interpolated to the points of a layer, then of a line, then along it, with one span in each lane of a vector,
   and what comes out is sent back the same way. Layers are taken in S portions of H, which do not depend on the number of
   threads; what each sends to nodes lies in `part` until all are added in order, so that results do not depend on it. */
#include <stdlib.h>
#include <string.h>
#ifdef VECTOR_FUNCTIONS
#define VECTOR _Pragma("omp declare simd notinbranch")
#else
#define VECTOR
#endif
typedef T V __attribute__((vector_size(L * sizeof(T)), may_alias));
#define ARRAY __attribute__((aligned(L * sizeof(T))))
#define AT(x) (*(V *)&(x))
#define ROOM(n) (((n) + 15) / 16 * 16)
#define SIMD _Pragma("omp simd")
/* insert functions */

/* Add what portions have for `count` layers of l numbers each, from the first layer of functions of their first span on. */
static void join(T *out, const T *part, const int64_t *first, int64_t count, int64_t l, int64_t A, int64_t room, int64_t S,
                 int64_t H, int64_t NZ)
{
#pragma omp for schedule(static)
  for (int64_t z = 0; z < count; z++)
    for (int64_t s = 0; s < S; s++) {
      const int64_t base = first[s * H], last = NZ - s * H < H ? NZ - 1 : s * H + H - 1;
      if (z < base || z >= first[last] + A) continue;
      T *r = out + z * l;
      const T *v = part + (s * room + z - base) * l;
      for (int64_t j = 0; j < l; j++) r[j] += v[j];
    }
}

int run(int64_t B, int64_t NX, int64_t NY, int64_t NZ, int64_t S, int64_t H, const T *const *in, const int64_t *at,
        const int64_t *dims, const int64_t *const *first, const T *const *tables, const T *k, T *const *part,
        T *const *out, double *partial, double *sums, int64_t threads)
{
  const int64_t NP = (NX + W - 1) / W * W, E = NX * NY * NZ;
  int failed = 0;
#pragma omp parallel num_threads(threads)
  {
    T *work = aligned_alloc(64, (/* insert room */ + 16) * sizeof(T) / 64 * 64 + 64), *next = work;
    if (!work) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
    for (int64_t b = 0; !failed && b < B; b++) {
#pragma omp for schedule(static)
      for (int64_t s = 0; s < S; s++) {
        const int64_t lowest = s * H, highest = NZ - lowest < H ? NZ : lowest + H;
        double own[SUMS] = {0};
        next = work;
        /* insert start */
        for (int64_t z = lowest; z < highest; z++) {
          /* insert layer */
          for (int64_t y = 0; y < NY; y++)
            for (int64_t c = 0; c < QZ * QY; c++) {
              const int64_t cz = c / QY, cy = c % QY, line = z * NY + y;
              (void)cz, (void)cy, (void)line;
              /* insert line */
              for (int64_t x = 0; x < NX; x += W) {
                const int64_t n = NX - x < W ? NX - x : W;
                /* insert before */
                for (int64_t cx = 0; cx < QX; cx++) {
                  const int64_t q = c * QX + cx;
                  (void)q;
                  /* insert interpolation */
                  T /* insert reductions */;
#pragma omp simd reduction(+ : /* insert sums */)
                  for (int64_t i = 0; i < n; i++) {
                    /* insert point */
                  }
                  /* insert spread */
                }
                /* insert after */
              }
              /* insert ended */
            }
          /* insert back */
        }
        for (int64_t j = 0; j < SUMS; j++) partial[(b * S + s) * SUMS + j] = own[j];
      }
      /* insert joined */
    }
    free(work);
  }
  if (failed) return 1;
  for (int64_t b = 0; b < B; b++)
    for (int64_t s = 0; s < S; s++)
      for (int64_t j = 0; j < SUMS; j++) sums[b * SUMS + j] += partial[(b * S + s) * SUMS + j];
  return 0;
}
