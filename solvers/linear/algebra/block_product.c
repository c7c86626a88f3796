/* C = A B for sparse matrices of dense blocks, of R × K, K × S and R × S numbers; `T` is their type.

   Each row merges rows of B, and remembers the place of every column it has met; they stay in the order of meeting. A
   thread takes a range of rows, and writes from the place on that they can begin at most; then all move together. There is
   room for `sum over the entries of A of the length of B's row` blocks. Returns how many there are, −1 if memory is short. */
#include <stdlib.h>
#include <string.h>

int run(int64_t n, int64_t columns, const int32_t *acrow, const int32_t *acolumn, const T *a, const int32_t *bcrow,
        const int32_t *bcolumn, const T *b, int32_t *crow, int32_t *column, T *c, int64_t threads)
{
  const int64_t parts = n < 4096 ? 1 : threads;
  int64_t *begin = calloc(parts + 1, sizeof *begin);
  int short_of = begin == NULL;
  #pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int64_t part = 0; part < parts; part++) {
    int32_t *place = short_of ? NULL : malloc((columns + 1) * sizeof *place);
    if (!place) {
      #pragma omp atomic write
      short_of = 1;
      continue;
    }
    memset(place, -1, columns * sizeof *place);
    int64_t found = 0;
    const int64_t row0 = n * part / parts, row1 = n * (part + 1) / parts;
    for (int64_t m = 0; m < acrow[row0]; m++) found += bcrow[acolumn[m] + 1] - bcrow[acolumn[m]];
    begin[part] = found;
    for (int64_t row = row0; row < row1; row++) {
      const int64_t first = found;
      for (int64_t m = acrow[row]; m < acrow[row + 1]; m++)
        for (int64_t l = bcrow[acolumn[m]]; l < bcrow[acolumn[m] + 1]; l++) {
          const int32_t j = bcolumn[l];
          if (place[j] < first) {
            place[j] = (int32_t)found, column[found] = j;
            memset(c + found * R * S, 0, R * S * sizeof *c);
            found++;
          }
          const T *left = a + m * R * K, *right = b + l * K * S;
          T *out = c + (int64_t)place[j] * R * S;
          for (int r = 0; r < R; r++)
            for (int k = 0; k < K; k++)
              for (int s = 0; s < S; s++) out[r * S + s] += left[r * K + k] * right[k * S + s];
        }
      crow[row + 1] = (int32_t)(found - first);
    }
    free(place);
  }
  for (int64_t row = 0; row < n; row++) crow[row + 1] += crow[row];
  for (int64_t part = 1; part < parts && !short_of; part++) {
    const int64_t row0 = n * part / parts, to = crow[row0], size = crow[n * (part + 1) / parts] - to;
    memmove(column + to, column + begin[part], size * sizeof *column);
    memmove(c + to * R * S, c + begin[part] * R * S, size * R * S * sizeof *c);
  }
  free(begin);
  return short_of ? -1 : crow[n];
}
