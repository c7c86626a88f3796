/* Averages over labelled pixels. `Value` and `Label` are defined before this text.

   Pixels with a positive label get the mean of all pixels of that label in their image, those labelled 0 keep their
   value, and those with a negative label get 0. Sums are in double precision, in the order of the pixels. */
#include <stdint.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

/* B images of n pixels with labels up to `most`. Returns the number of images that failed for lack of memory. */
int run(int64_t B, int64_t n, int64_t most, const Value *x, const Label *labels, Value *out, int64_t threads)
{
  const int64_t top = most + 1;
  int failed = 0;
#ifdef MADV_HUGEPAGE /* as in labelling.c */
  const uintptr_t page = 1 << 21, first = ((uintptr_t)out + page - 1) & -page, last = (uintptr_t)(out + B * n) & -page;
  if (last > first) madvise((void *)first, last - first, MADV_HUGEPAGE);
#endif
#pragma omp parallel for num_threads(threads < B ? threads : B) schedule(dynamic) reduction(+ : failed)
  for (int64_t b = 0; b < B; b++) {
    typedef struct { double sum; int64_t count; } Total;
    const Value *from = x + b * n;
    const Label *label = labels + b * n;
    Value *to = out + b * n;
    Total *total = calloc(top, sizeof(Total));
    if (!total) { failed++; continue; }
    for (int64_t i = 0; i < n;) { /* a run of equal labels at a time */
      const Label value = label[i];
      if (value <= 0) { i++; continue; }
      double sum = 0;
      const int64_t start = i;
      for (; i < n && label[i] == value; i++) sum += from[i];
      total[value].sum += sum, total[value].count += i - start;
    }
    for (int64_t i = 0; i < n;) {
      const Label value = label[i];
      if (value <= 0) { to[i] = value ? 0 : from[i]; i++; continue; }
      const Value mean = (Value)(total[value].sum / total[value].count);
      for (; i < n && label[i] == value; i++) to[i] = mean;
    }
    free(total);
  }
  return failed;
}
