/* Averages over labelled pixels. `typedef ... Value; typedef ... Label;` stands before this text.

   Pixels with a positive label get the mean of all pixels of that label in their image, those labelled 0 keep their
   value, and those with a negative label get 0. Sums are in double precision, in the order of the pixels. */
#include <stdint.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

/* size = images, pixels, highest label, threads. Returns the number of images that failed for lack of memory. */
int run(const int64_t *size, const Value *x, const Label *labels, Value *out)
{
  const int64_t B = size[0], n = size[1], top = size[2] + 1;
  int failed = 0;
#ifdef MADV_HUGEPAGE /* as in labelling.c */
  const uintptr_t page = 1 << 21, first = ((uintptr_t)out + page - 1) & -page, last = (uintptr_t)(out + B * n) & -page;
  if (last > first) madvise((void *)first, last - first, MADV_HUGEPAGE);
#endif
#pragma omp parallel for num_threads(size[3] < B ? size[3] : B) schedule(dynamic) reduction(+ : failed)
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
