/* Good break points in nearly linear time.

   Blocks of a few samples are merged in pairs, all but those whose error would grow most, until few pieces are left
   (Acharya, Diakonikolas, Li and Schmidt 2016). Their break points and those of binary segmentation are candidates, the
   best of which are found by dynamic programming, and each is at last moved to the best place between its neighbours. */

enum { CHOICES = 1200 };  /* candidates up to which all pairs are looked at */
enum { SHORT = 1 << 15 }; /* signals that more than one thread would not make faster */

/* A fit to a piece is a row of doubles: its length, triangle R, right side z [A][C] and squared error, in the
   orthonormal polynomials of its length. Without weights R is the identity. */
static inline int64_t size_of(const Signal *S) { return 2 + TRIANGLE + A * S->C; }
static inline double error_of(const Signal *S, const double *fit) { return fit[1 + TRIANGLE + A * S->C]; }

/* Off-diagonal entry j of the Jacobi matrix of polynomials orthonormal on m samples. */
static inline double jacobi(double m, double j)
{
  return j < m ? j * sqrt((m * m - j * j) / (4 * (4 * j * j - 1))) : 0;
}

/* Q_j = sum over i <= j of W[j][i] q_i on m of the samples of Q, whose centre lies at `shift` from that of all. */
static void connect(double all, double m, double shift, double W[A][A])
{
  double b[A + 1];
  for (int j = 0; j <= A; j++) b[j] = jacobi(m, j);
  memset(W, 0, sizeof(double) * A * A);
  W[0][0] = sqrt(m / all);
  for (int j = 0; j < D; j++) {
    const double next = jacobi(all, j + 1), now = jacobi(all, j);
    if (next == 0) return;
    for (int i = 0; i <= j + 1; i++) {
      double sum = i <= j ? shift * W[j][i] : 0;
      if (i > 0) sum += b[i] * W[j][i - 1];
      if (i < j) sum += b[i + 1] * W[j][i + 1];
      if (j > 0 && i < j) sum -= now * W[j - 1][i];
      W[j + 1][i] = sum / next;
    }
  }
}

static void fit_samples(const Signal *S, int64_t a, int64_t c, double *fit)
{
  const int64_t C = S->C;
  const double m = c - a;
  double *R = fit + 1, *z = R + TRIANGLE, v[A], y[C], b[A + 1];
  memset(fit, 0, size_of(S) * sizeof(double));
  fit[0] = m;
  for (int j = 0; j <= A; j++) b[j] = jacobi(m, j);
  for (int64_t i = a; i < c; i++) {
    const double w = S->w ? S->w[i] : 1, t = i - a - (m - 1) / 2;
    if (w == 0) continue;
    v[0] = w / sqrt(m);
    for (int j = 0; j < D; j++) v[j + 1] = b[j + 1] ? (t * v[j] - (j ? b[j] * v[j - 1] : 0)) / b[j + 1] : 0;
    for (int64_t k = 0; k < C; k++) y[k] = w * S->x[i * C + k];
    z[A * C] += rotate(R, z, C, v, y);
  }
}

/* The fit to two neighbours together. */
static void join(const Signal *S, const double *one, const double *two, double *both)
{
  const int64_t C = S->C, error = 1 + TRIANGLE + A * C;
  const double all = one[0] + two[0];
  double W[A][A], V[A][A], v[A], y[C];
  connect(all, one[0], -two[0] / 2, W);
  connect(all, two[0], one[0] / 2, V);
  both[0] = all;
  const double *R = one + 1;
  double *to = both + 1;
  for (int i = 0; i < A; R += A - i, i++)
    for (int j = i; j < A; j++) {
      double sum = 0;
      for (int l = i; l <= j; l++) sum += R[l - i] * W[j][l];
      *to++ = sum;
    }
  memcpy(to, one + 1 + TRIANGLE, A * C * sizeof(double));
  both[error] = one[error] + two[error];
  R = two + 1;
  for (int i = 0; i < A; R += A - i, i++) {
    for (int j = 0; j < A; j++) {
      v[j] = 0;
      for (int l = i; l <= j; l++) v[j] += R[l - i] * V[j][l];
    }
    for (int64_t k = 0; k < C; k++) y[k] = two[1 + TRIANGLE + i * C + k];
    both[error] += rotate(both + 1, to, C, v, y);
  }
}

typedef struct { double key; int64_t a, c, at; } Item;

static int greater(const Item *i, const Item *j) { return i->key > j->key || (i->key == j->key && i->a < j->a); }

static void push(Item *heap, int64_t count, Item new)
{
  int64_t i = count;
  for (; i > 0 && greater(&new, heap + (i - 1) / 2); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = new;
}

static Item pop(Item *heap, int64_t count) /* of `count` items; count - 1 are left */
{
  const Item top = heap[0], last = heap[count - 1];
  int64_t i = 0, next;
  while ((next = 2 * i + 1) < count - 1) {
    if (next + 1 < count - 1 && greater(heap + next + 1, heap + next)) next++;
    if (!greater(heap + next, &last)) break;
    heap[i] = heap[next], i = next;
  }
  heap[i] = last;
  return top;
}

/* The k-th largest of the values (k >= 1), which are reordered. */
static double largest(double *v, int64_t count, int64_t k)
{
  int64_t low = 0, high = count - 1;
  k--;
  while (low < high) {
    const double pivot = v[(low + high) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (v[i] > pivot) i++;
      while (v[j] < pivot) j--;
      if (i <= j) {
        const double t = v[i];
        v[i++] = v[j], v[j--] = t;
      }
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else break;
  }
  return v[k];
}

/* Samples of a block: twice what determines a polynomial, more on long signals for the sake of memory. */
static inline int64_t block_of(const Signal *S)
{
  const int64_t block = S->n > 1 << 18 ? 4 * A : 2 * A;
  return block > S->least ? block : S->least;
}

/* Merge pairs of blocks, round by round, all but the `keep` pairs whose error would grow most, or those that would grow
   by more than the penalty. Returns the number of pieces left, their ends in places[1...]; -1 without memory. */
static int64_t greedy(const Signal *S, int64_t keep, double penalty, int64_t *places)
{
  const int64_t n = S->n, P = size_of(S), block = block_of(S);
  int64_t count = n / block > 0 ? n / block : 1, merges = 1, idle = 0;
  double *fits = malloc(count * P * sizeof(double)), *joined = malloc((count / 2 + 1) * P * sizeof(double));
  double *growth = malloc((count + 2) * sizeof(double)), *sorted = growth ? growth + count / 2 + 1 : NULL;
  if (!fits || !joined || !growth) count = -1;
#pragma omp parallel for num_threads(S->threads)
  for (int64_t i = 0; i < count; i++) fit_samples(S, i * block, i + 1 < count ? (i + 1) * block : n, fits + i * P);
  for (int64_t odd = 0; count > 1 && idle < 2; odd = !odd, idle = merges ? 0 : idle + 1) {
    const int64_t pairs = (count - odd) / 2;
    if (penalty < 0 && pairs <= keep) break;
#pragma omp parallel for num_threads(S->threads)
    for (int64_t i = 0; i < pairs; i++) {
      const double *one = fits + (2 * i + odd) * P, *two = one + P;
      join(S, one, two, joined + i * P);
      sorted[i] = growth[i] = error_of(S, joined + i * P) - error_of(S, one) - error_of(S, two);
    }
    double limit = penalty;
    int64_t equal = 0; /* of those that grow by just the limit, so many are kept too */
    if (penalty < 0) {
      limit = largest(sorted, pairs, keep);
      for (int64_t i = 0; i < pairs; i++) equal += growth[i] > limit;
      equal = keep - equal;
    }
    int64_t to = odd;
    merges = 0;
    for (int64_t i = 0; i < pairs; i++) {
      const double *one = fits + (2 * i + odd) * P;
      if (growth[i] > limit || (growth[i] == limit && equal-- > 0)) {
        memmove(fits + to * P, one, 2 * P * sizeof(double));
        to += 2;
      } else memcpy(fits + to++ * P, joined + i * P, P * sizeof(double)), merges++;
    }
    if (odd + 2 * pairs < count) memmove(fits + to++ * P, fits + (count - 1) * P, P * sizeof(double));
    count = to;
  }
  places[0] = 0;
  for (int64_t i = 0; i < count; i++) places[i + 1] = places[i] + (int64_t)fits[i * P];
  free(fits);
  free(joined);
  free(growth);
  return count;
}

static int ascending(const void *a, const void *b)
{
  const int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
  return (i > j) - (i < j);
}

/* Break the piece whose error falls most, until there are k, or none falls by more than the penalty. Returns the number
   of pieces; -1 without memory. It stops where pieces at the edges have made it read 100 times as much as there is. */
static int64_t bisect(const Signal *S, int64_t k, double penalty, int64_t *places)
{
  const int64_t least[2] = {S->least, S->least};
  int64_t count = 0, waiting = 0, todo = 1, budget = 100 * S->n, todo_from[2] = {0, 0}, todo_to[2] = {S->n, 0};
  int64_t room = 64;
  Item *heap = malloc(room * sizeof(Item));
  if (!heap) return -1;
  places[count++] = 0;
  while (1) {
    if (waiting + 2 > room) {
      Item *more = realloc(heap, (room *= 2) * sizeof(Item));
      if (!more) { free(heap); return -1; }
      heap = more;
    }
    for (int64_t i = 0; i < todo; i++) {
      double error, unbroken;
      const int64_t a = todo_from[i], c = todo_to[i], at = best_break(S, a, c, D, D, least, -1, &error, &unbroken);
      if (at == -2) { free(heap); return -1; }
      budget -= c - a;
      if (at > 0 && unbroken - error > penalty) push(heap, waiting++, (Item){unbroken - error, a, c, at});
    }
    if (count == k || !waiting || budget < 0) break;
    const Item best = pop(heap, waiting--);
    places[count++] = best.at;
    todo = 2;
    todo_from[0] = best.a, todo_to[0] = todo_from[1] = best.at, todo_to[1] = best.c;
  }
  free(heap);
  places[count] = S->n;
  qsort(places, count, sizeof(int64_t), ascending);
  return count;
}

/* Of the pieces between M + 1 places, the best at most k, or those that pay for the penalty; degree[q] and least[q] for
   each piece or, `same`, for all. Returns their number; -1 without memory. */
static int64_t choose(const Signal *S, int64_t M, int64_t *places, int64_t k, double penalty, const int64_t *degree,
                      const int64_t *least, int same)
{
  const int64_t P = size_of(S), rows = penalty < 0 ? k : 1, kinds = same ? 1 : D + 1;
  double *fits = malloc(M * P * sizeof(double)), *cost = malloc(kinds * M * (M + 1) * sizeof(double));
  double *best = malloc((rows + 1) * (M + 1) * sizeof(double));
  int64_t *from = malloc((rows + 1) * (M + 1) * sizeof(int64_t)), count = -1;
  if (!fits || !cost || !best || !from) goto end;
#pragma omp parallel for num_threads(S->threads) schedule(dynamic)
  for (int64_t i = 0; i < M; i++) fit_samples(S, places[i], places[i + 1], fits + i * P);
  int failed = 0;
#pragma omp parallel for num_threads(S->threads) schedule(dynamic)
  for (int64_t a = 0; a < M; a++) { /* cost[kind][c][a] */
    double *now = malloc(2 * P * sizeof(double)), *next = now + P;
    if (!now) { failed = 1; continue; }
    memcpy(now, fits + a * P, P * sizeof(double));
    for (int64_t c = a + 1; c <= M; c++) {
      for (int64_t d = 0; d < kinds; d++)
        cost[(d * (M + 1) + c) * M + a] =
            error_of(S, now) + tail(now + 1 + TRIANGLE, S->C, same ? degree[0] : d);
      if (c == M) break;
      join(S, now, fits + c * P, next);
      memcpy(now, next, P * sizeof(double));
    }
    free(now);
  }
  if (failed) goto end;
  for (int64_t i = 0; i <= M; i++) best[i] = i ? INFINITY : 0;
  for (int64_t q = 1; q <= rows; q++) {
    const int64_t d = same ? 0 : degree[q - 1], enough = least[same ? 0 : q - 1];
    double *row = best + q * (M + 1);
    if (penalty >= 0) row = best;
    else row[0] = INFINITY;
    for (int64_t c = 1; c <= M; c++) {
      const double *previous = penalty < 0 ? row - (M + 1) : row, *costs = cost + (d * (M + 1) + c) * M;
      double value = INFINITY;
      for (int64_t a = 0; a < c; a++) {
        const double v = previous[a] + costs[a];
        if (v < value && observed(S, places[a], places[c]) >= enough) value = v, from[q * (M + 1) + c] = a;
      }
      row[c] = penalty < 0 ? value : value + penalty;
    }
  }
  count = 1;
  if (penalty < 0) {
    for (int64_t q = 1; q <= k; q++)
      if (best[q * (M + 1) + M] < best[count * (M + 1) + M] || (!same && q == k)) count = q;
    if (!(best[count * (M + 1) + M] < INFINITY)) { count = 0; goto end; }
    int64_t c = M;
    for (int64_t q = count; q > 0; q--) { /* chosen places gather at the end of `from`'s row 0 */
      from[q] = c;
      c = from[q * (M + 1) + c];
    }
  } else {
    count = 0;
    for (int64_t c = M; c > 0; c = from[M + 1 + c]) count++;
    int64_t q = count;
    for (int64_t c = M; c > 0; c = from[M + 1 + c]) from[q--] = c;
  }
  for (int64_t q = 1; q <= count; q++) places[q] = places[from[q]]; /* from[q] >= q */
end:
  free(fits);
  free(cost);
  free(best);
  free(from);
  return count;
}

/* Remove the break whose removal costs least, until k pieces are left or it costs more than the penalty. */
static int64_t remove_weakest(const Signal *S, int64_t M, int64_t *places, int64_t k, double penalty)
{
  const int64_t P = size_of(S);
  int64_t count = M, waiting = 0, *links = malloc(3 * M * sizeof(int64_t));
  double *fits = malloc((M + 1) * P * sizeof(double)), *joined = fits + M * P;
  Item *heap = malloc(3 * M * sizeof(Item));
  if (!links || !fits || !heap) count = -1;
  int64_t *next = links, *before = links + M, *version = links + 2 * M;
  for (int64_t i = 0; i < M && count > 0; i++) {
    fit_samples(S, places[i], places[i + 1], fits + i * P);
    next[i] = i + 1, before[i] = i - 1, version[i] = 0;
  }
#define OFFER(i)                                                                                                     \
  if ((i) >= 0 && next[i] < M) {                                                                                     \
    join(S, fits + (i) * P, fits + next[i] * P, joined);                                                             \
    const double up = error_of(S, joined) - error_of(S, fits + (i) * P) - error_of(S, fits + next[i] * P);           \
    const int few = observed(S, places[i], places[next[i]]) < S->least ||                                            \
                    observed(S, places[next[i]], places[next[next[i]]]) < S->least;                                  \
    push(heap, waiting++, (Item){few ? INFINITY : -up, i, next[i], version[i] + version[next[i]]});                  \
  }
  for (int64_t i = 0; i + 1 < count; i++) OFFER(i)
  while (count > 1 && waiting) {
    const Item top = pop(heap, waiting--);
    const int64_t i = top.a, j = top.c;
    if (version[i] < 0 || version[j] < 0 || next[i] != j || version[i] + version[j] != top.at) continue;
    if (top.key < INFINITY && (penalty < 0 ? count <= k : -top.key > penalty)) break;
    join(S, fits + i * P, fits + j * P, joined);
    memcpy(fits + i * P, joined, P * sizeof(double));
    next[i] = next[j];
    if (next[i] < M) before[next[i]] = i;
    version[i] += version[j] + 1;
    version[j] = -1;
    count--;
    OFFER(i)
    OFFER(before[i])
  }
  if (count > 0) {
    int64_t q = 0;
    for (int64_t i = 0; i < M; i = next[i]) places[q++] = places[i];
    places[q] = S->n;
  }
  free(links);
  free(fits);
  free(heap);
  return count;
}

/* Move each break to the best place between its neighbours, until none moves. */
static int refine(const Signal *S, int64_t k, int64_t *places, const int64_t *degree, const int64_t *least, int same)
{
  int failed = 0, moved = 1;
  unsigned char *stale = malloc(k + 1); /* of the same parity none is written while others are read */
  if (!stale) return 1;
  memset(stale, 1, k + 1);
  for (int sweep = 0; sweep < 100 && moved; sweep++) {
    moved = 0;
    for (int64_t first = 1; first <= 2; first++) {
#pragma omp parallel for num_threads(S->threads) schedule(dynamic) reduction(| : moved, failed)
      for (int64_t j = first; j < k; j += 2) {
        if (!stale[j]) continue;
        const int64_t *d = same ? degree : degree + j - 1, enough[2] = {least[same ? 0 : j - 1], least[same ? 0 : j]};
        double error, unbroken;
        const int64_t at = best_break(S, places[j - 1], places[j + 1], d[0], d[same ? 0 : 1], enough, places[j], &error,
                                      &unbroken);
        failed |= at == -2;
        stale[j] = 0;
        if (at > 0 && at != places[j]) places[j] = at, moved = stale[j - 1] = stale[j + 1] = 1;
      }
    }
  }
  free(stale);
  return failed;
}

/* The squared error of pieces of one degree. */
static double error_of_pieces(const Signal *S, int64_t k, const int64_t *places, double *work)
{
  double sum = 0;
  for (int64_t j = 0; j < k; j++) {
    const int64_t length = places[j + 1] - places[j];
    if (scan(S, places[j], 1, length, D, work, 1, 0)) return INFINITY;
    sum += work[length - 1];
  }
  return sum;
}

/* Breaks of at most k pieces, or of as many as pay for the penalty. Returns their number; 0 if none was found that leaves
   enough samples to each piece, -1 without memory. */
static int64_t merge(const Signal *S, int64_t k, double penalty, const int64_t *degree, const int64_t *least, int same,
                     int64_t *breaks)
{
  const int64_t n = S->n, block = block_of(S), most = n / block + 2 * k + 4;
  int64_t *places = malloc(2 * most * sizeof(int64_t)), *halves = places + most, M, count = -1, split;
  if (!places) return -1;
  if ((M = greedy(S, 2 * k, penalty, places)) < 0 || (split = bisect(S, k, penalty, halves)) < 0) goto end;
  int64_t total = 0; /* candidates in order, once each */
  memcpy(places + M + 1, halves, (split + 1) * sizeof(int64_t));
  total = M + split + 2;
  if (!same) {
    int64_t spare = n, at = 0;
    for (int64_t q = 0; q < k; q++) spare -= least[q];
    for (int64_t q = 0; q + 1 < k && spare >= 0; q++) places[total++] = (at += least[q]) + (q + 1) * spare / k;
  }
  qsort(places, total, sizeof(int64_t), ascending);
  M = 0;
  for (int64_t i = 1; i < total; i++)
    if (places[i] > places[M]) places[++M] = places[i];
  count = same && M > CHOICES ? remove_weakest(S, M, places, k, penalty)
                              : choose(S, M, places, k, penalty, degree, least, same);
  if (count > 0 && refine(S, count, places, degree, least, same)) count = -1;
  for (int64_t before = count + 1; count > 0 && penalty >= 0 && count < before;) {
    before = count;
    count = remove_weakest(S, count, places, k, penalty);
    if (count > 0 && count < before && refine(S, count, places, degree, least, same)) count = -1;
  }
  if (count > 0 && same && penalty < 0) { /* never worse than binary segmentation */
    double *work = malloc(n * sizeof(double));
    if (!work) { count = -1; goto end; }
    if (error_of_pieces(S, split, halves, work) < error_of_pieces(S, count, places, work)) {
      count = split;
      memcpy(places, halves, (split + 1) * sizeof(int64_t));
      if (refine(S, count, places, degree, least, same)) count = -1;
    }
    free(work);
  }
  if (count > 0) memcpy(breaks, places, (count + 1) * sizeof(int64_t));
end:
  free(places);
  return count;
}

/* B items of n samples and C channels; `same` says that one degree and number of samples are for all pieces. Returns
   the number of items that failed for lack of memory; those without enough samples for each piece begin at -1. */
int run(int64_t B, int64_t n, int64_t C, const double *x, const double *w, const double *gain, const int64_t *seen,
        int64_t k, double penalty, const int64_t *degree, const int64_t *least, int64_t fewest, int64_t same,
        int64_t *breaks, int64_t threads)
{
  const int64_t places = (penalty < 0 ? k : n) + 1;
  int failed = 0;
#pragma omp parallel for num_threads(threads < B ? threads : B) schedule(dynamic) reduction(+ : failed) if (B > 1)
  for (int64_t b = 0; b < B; b++) {
    const Signal S = {n, C, fewest, x + b * n * C, w ? w + b * n : NULL, gain, seen ? seen + b * (n + 1) : NULL,
                      B > 1 || n < SHORT ? 1 : (int)threads};
    const int64_t count = merge(&S, k, penalty, degree, least, (int)same, breaks + b * places);
    failed += count < 0;
    if (count == 0) breaks[b * places] = -1;
  }
  return failed;
}
