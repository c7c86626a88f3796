/* Connected components of images: runs of equal pixels in a line are joined with those of the lines before.

   `Pixel` and `Label` are defined before this text. A run's parent has a smaller number, so that the root of a component
   is its first run in scan order, and components are numbered by their first pixel. Lines lie at offsets (dz, dy) from
   each other; with m of these not zero, pixels may differ by `reach` - m > 0 in the line as well. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef struct { int32_t from, to, parent; } Run;

static inline int32_t root(Run *run, int32_t i)
{
  while (run[i].parent != i) i = run[i].parent = run[run[i].parent].parent;
  return i;
}

/* Join the components of run i and of run j, which comes before it. */
static inline void unite(Run *run, int32_t i, int32_t j)
{
  j = root(run, j);
  if (run[i].parent == j) return;
  if (run[i].parent == i) { run[i].parent = j; return; }
  i = root(run, i);
  if (i < j) run[j].parent = i;
  else run[i].parent = j;
}

/* Join touching runs i ... i1 of one line with runs j ... j1 of another, where their pixels are equal. */
static void join(Run *run, int32_t i, int32_t i1, int32_t j, int32_t j1, int32_t slack, const Pixel *line,
                 const Pixel *other)
{
  for (; i < i1; i++) {
    while (j < j1 && run[j].to + slack <= run[i].from) j++;
    for (int32_t k = j; k < j1 && run[k].from < run[i].to + slack; k++)
      if (line[run[i].from] == other[run[k].from]) unite(run, i, k);
  }
}

/* The first pixel from x on that differs from `value`, eight at a time where they are bytes. */
static inline int64_t past(const Pixel *line, int64_t width, int64_t x, Pixel value)
{
  if (sizeof(Pixel) == 1)
    for (uint64_t word; x + 8 <= width; x += 8) {
      memcpy(&word, line + x, 8);
      word ^= 0x0101010101010101u * (uint8_t)value;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      if (word) return x + __builtin_ctzll(word) / 8;
#else
      if (word) return x + __builtin_clzll(word) / 8;
#endif
    }
  while (x < width && line[x] == value) x++;
  return x;
}

static int64_t label(const Pixel *image, int64_t Z, int64_t Y, int64_t X, int reach, Label *out)
{
  const int64_t lines = Z * Y;
  int64_t room = 4 * lines + 64, count = 0, found = 0;
  int64_t *first = malloc((lines + 1) * sizeof(int64_t));
  Run *run = malloc(room * sizeof(Run));
  if (!first || !run) goto fail;
  for (int64_t z = 0; z < Z; z++)
    for (int64_t y = 0; y < Y; y++) {
      const int64_t l = z * Y + y;
      const Pixel *line = image + l * X;
      first[l] = count;
      if (count + X > room) { /* as many as there may be */
        Run *more = realloc(run, (room = 2 * room + 2 * X) * sizeof(Run));
        if (!more) goto fail;
        run = more;
      }
      for (int64_t x = past(line, X, 0, 0); x < X; x = past(line, X, x, 0)) {
        const int64_t from = x;
        x = past(line, X, x, line[x]);
        run[count] = (Run){(int32_t)from, (int32_t)x, (int32_t)count};
        count++;
      }
      for (int dz = -1; dz <= 0; dz++)
        for (int dy = -1; dy <= (dz ? 1 : -1); dy++) {
          const int away = (dz != 0) + (dy != 0);
          if (away > reach || z + dz < 0 || y + dy < 0 || y + dy >= Y) continue;
          const int64_t o = l + dz * Y + dy;
          join(run, (int32_t)first[l], (int32_t)count, (int32_t)first[o], (int32_t)first[o + 1], away < reach, line,
               image + o * X);
        }
      first[l + 1] = count;
    }
  found = 0;
  for (int64_t i = 0; i < count; i++) /* parents come before their children, whose places now hold labels, from 1 on */
    run[i].parent = run[i].parent == i ? (int32_t)++found : run[run[i].parent].parent;
  for (int64_t l = 0; l < lines; l++) {
    Label *row = out + l * X;
    int64_t x = 0;
    for (int64_t i = first[l]; i < first[l + 1]; i++) {
      const Label value = run[i].parent;
      for (; x < run[i].from; x++) row[x] = 0;
      for (; x < run[i].to; x++) row[x] = value;
    }
    for (; x < X; x++) row[x] = 0;
  }
  free(first);
  free(run);
  return found;
fail:
  free(first);
  free(run);
  return -1;
}

/* B images of Z layers of Y lines of X pixels. Counts are those of components, -1 without memory: returns how many. */
int run(int64_t B, int64_t Z, int64_t Y, int64_t X, int64_t reach, const Pixel *images, Label *out, int64_t *counts,
        int64_t threads)
{
  const int64_t pixels = Z * Y * X;
  int failed = 0;
#ifdef MADV_HUGEPAGE /* fresh memory comes in pages of 4 KiB, each of which costs as much as to fill it */
  const uintptr_t page = 1 << 21, from = ((uintptr_t)out + page - 1) & -page, to = (uintptr_t)(out + B * pixels) & -page;
  if (to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#endif
#pragma omp parallel for num_threads(threads < B ? threads : B) schedule(dynamic) reduction(+ : failed)
  for (int64_t b = 0; b < B; b++) {
    counts[b] = label(images + b * pixels, Z, Y, X, (int)reach, out + b * pixels);
    failed += counts[b] < 0;
  }
  return failed;
}
