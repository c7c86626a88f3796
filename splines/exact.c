/* The best break points by dynamic programming over all segments.

   best[q][r] = min over s of best[q - 1][s] + cost(s, r), with the costs of all segments that end at r grown from those
   that end at r - 1; or with a penalty for each piece, F[r] = min over s of F[s] + cost(s, r) + penalty, where a start
   s that cannot win any more is forgotten (Killick, Fearnhead and Eckley 2012). Pieces of degree 0 compare all constants
   mu at once instead (functional pruning; Rigaill 2015, Maidstone et al. 2017). */

typedef struct { /* fits of all segments with a common end, one array per number, `room` starts each */
  int64_t room, *start;
  double *cost, *polynomial, *R;
} Fits;

static int make_fits(const Signal *S, int64_t room, Fits *f)
{
  f->room = room;
  f->start = malloc(room * sizeof(int64_t));
  f->cost = malloc(room * sizeof(double));
  f->polynomial = malloc(A * S->C * room * sizeof(double));
  f->R = S->gain ? NULL : malloc(TRIANGLE * room * sizeof(double));
  return f->start && f->cost && f->polynomial && (S->gain || f->R);
}

static void free_fits(Fits *f)
{
  free(f->start);
  free(f->cost);
  free(f->polynomial);
  free(f->R);
}

static void begin(const Signal *S, Fits *f, int64_t j, int64_t start)
{
  f->start[j] = start;
  f->cost[j] = 0;
  for (int64_t i = 0; i < A * S->C; i++) f->polynomial[i * f->room + j] = 0;
  if (f->R)
    for (int i = 0; i < TRIANGLE; i++) f->R[i * f->room + j] = 0;
}

static void move(const Signal *S, Fits *f, int64_t from, int64_t to)
{
  f->start[to] = f->start[from];
  f->cost[to] = f->cost[from];
  for (int64_t i = 0; i < A * S->C; i++) f->polynomial[i * f->room + to] = f->polynomial[i * f->room + from];
  if (f->R)
    for (int i = 0; i < TRIANGLE; i++) f->R[i * f->room + to] = f->R[i * f->room + from];
}

#define EXTEND(AT)                                                                 \
  _Pragma("omp simd") for (int64_t j = 0; j < live; j++)                           \
  {                                                                                \
    const int64_t at = AT;                                                         \
    double q[A];                                                                   \
    _Pragma("GCC unroll 8") for (int i = 0; i < A; i++) q[i] = p[i * room + j];    \
    _Pragma("GCC unroll 8") for (int i = D - 1; i >= 0; i--) q[i] -= q[i + 1];     \
    const double e = x - q[0];                                                     \
    cost[j] += gain[at] * e * e;                                                   \
    _Pragma("GCC unroll 8") for (int i = 0; i < A; i++)                            \
        p[i * room + j] = q[i] + gain[(i + 1) * n + at] * e;                       \
  }

/* Sample r joins the first `live` segments; `all` says that they start at 0, 1, 2, ... */
static void extend(const Signal *S, Fits *f, int64_t live, int64_t r, int all)
{
  const int64_t n = S->n, room = f->room, C = S->C;
  double *restrict cost = f->cost;
  if (S->gain) {
    const double *restrict gain = S->gain;
    const int64_t *restrict start = f->start, shift = n - r - 1;
    for (int64_t k = 0; k < C; k++) {
      double *restrict p = f->polynomial + k * A * room;
      const double x = S->x[r * C + k];
      if (all) EXTEND(shift + j)
      else EXTEND(shift + start[j])
    }
    return;
  }
  const double w = S->w ? S->w[r] : 1;
  if (w == 0) return;
  double y[C], z[A * C], R[TRIANGLE], v[A];
  for (int64_t j = 0; j < live; j++) {
    const double t = (r - f->start[j] + 0.5) / n;
    v[0] = w;
    for (int i = 1; i < A; i++) v[i] = v[i - 1] * t;
    for (int i = 0; i < TRIANGLE; i++) R[i] = f->R[i * room + j];
    for (int64_t i = 0; i < A * C; i++) z[i] = f->polynomial[i * room + j];
    for (int64_t k = 0; k < C; k++) y[k] = w * S->x[r * C + k];
    cost[j] += rotate(R, z, C, v, y);
    for (int i = 0; i < TRIANGLE; i++) f->R[i * room + j] = R[i];
    for (int64_t i = 0; i < A * C; i++) f->polynomial[i * room + j] = z[i];
  }
}

static double least_sum(const double *restrict a, const double *restrict b, int64_t from, int64_t to)
{
  double m[16];
  int64_t s = from;
  for (int l = 0; l < 16; l++) m[l] = INFINITY;
  for (; s + 16 <= to; s += 16)
    for (int l = 0; l < 16; l++) {
      const double v = a[s + l] + b[s + l];
      m[l] = v < m[l] ? v : m[l];
    }
  for (; s < to; s++) {
    const double v = a[s] + b[s];
    m[0] = v < m[0] ? v : m[0];
  }
  for (int l = 1; l < 16; l++) m[0] = m[l] < m[0] ? m[l] : m[0];
  return m[0];
}

/* Rows 1 to k of best[k + 1][n + 1], of which row 0 is given. */
static int layers(const Signal *S, int64_t k, double *best)
{
  const int64_t n = S->n, m = n + 1;
  Fits f;
  int64_t high = 0; /* starts below it leave enough samples */
  const int ready = make_fits(S, n, &f);
  for (int64_t q = 1; q <= k; q++) best[q * m] = INFINITY;
  for (int64_t r = 0; ready && r < n; r++) {
    begin(S, &f, r, r);
    extend(S, &f, r + 1, r, 1);
    while (high <= r && observed(S, high, r + 1) >= S->least) high++;
    for (int64_t q = 1; q <= k; q++) best[q * m + r + 1] = least_sum(best + (q - 1) * m, f.cost, 0, high);
  }
  free_fits(&f);
  return !ready;
}

/* Breaks of the best q pieces: argmins along the way back, with costs grown from the end. */
static int trace(const Signal *S, int64_t q, const double *best, int64_t *breaks)
{
  const int64_t n = S->n, m = n + 1;
  int64_t r = n;
  double *cost = malloc(n * sizeof(double));
  int failed = !cost;
  breaks[q] = n;
  for (; !failed && q > 0; q--) {
    double least = INFINITY;
    int64_t at = 0;
    failed = scan(S, r - 1, -1, r, D, cost, 1, 0);
    for (int64_t s = 0; s < r; s++) {
      const double v = best[(q - 1) * m + s] + cost[r - s - 1];
      if (v < least && observed(S, s, r) >= S->least) least = v, at = s;
    }
    breaks[q - 1] = r = at;
  }
  free(cost);
  return failed;
}

/* F[r] with its start from[r]; F[0] is given. Starts whose cost has passed F die once a piece fits in after. */
static int penalised(const Signal *S, double penalty, double *F, int64_t *from)
{
  const int64_t n = S->n;
  Fits f;
  int64_t live = 0, *passed = malloc(n * sizeof(int64_t));
  const int ready = make_fits(S, n, &f) && passed;
  for (int64_t r = 0; ready && r < n; r++) {
    if (F[r] < INFINITY) passed[live] = -1, begin(S, &f, live++, r);
    extend(S, &f, live, r, 0);
    double least = INFINITY;
    for (int64_t j = 0; j < live; j++) {
      const double v = F[f.start[j]] + f.cost[j] + penalty;
      if (v < least && observed(S, f.start[j], r + 1) >= S->least) least = v, from[r + 1] = f.start[j];
    }
    F[r + 1] = least;
    int64_t kept = 0;
    for (int64_t j = 0; j < live; j++) {
      if (passed[j] < 0 && F[f.start[j]] + f.cost[j] >= least) passed[j] = r + 1;
      if (passed[j] >= 0 && observed(S, passed[j], r + 1) >= S->least - 1) continue;
      if (kept != j) move(S, &f, j, kept), passed[kept] = passed[j];
      kept++;
    }
    live = kept;
  }
  free(passed);
  free_fits(&f);
  return !ready;
}

typedef struct { double weight, mean, value; int64_t start, used; } Constant; /* value + weight (mu - mean)^2 */
typedef struct { double low, high; int64_t owner; } Part;                     /* where the owner is best */

/* The interval in which a is below b; a has seen more samples. */
static inline void below(const Constant *a, const Constant *b, double *low, double *high)
{
  const double p = a->weight - b->weight, shift = b->mean - a->mean;
  const double q = b->weight * shift, r = a->value - b->value - q * shift; /* p u^2 + 2 q u + r <= 0, u = mu - mean */
  *low = INFINITY, *high = -INFINITY;
  if (p <= 0) {
    if (r <= 0) *low = -INFINITY, *high = INFINITY;
    return;
  }
  const double root = q * q - p * r;
  if (root < 0) return;
  const double width = sqrt(root);
  *low = a->mean + (-q - width) / p;
  *high = a->mean + (-q + width) / p;
}

static inline void sample(Constant *a, double w, double x)
{
  if (w == 0) return;
  const double e = x - a->mean, old = a->weight;
  a->weight += w;
  a->mean += w / a->weight * e;
  a->value += w * old / a->weight * e * e;
}

/* next[r] = min over s of previous[s] + cost(s, r) + penalty, for one channel of constants. `previous` may be `next`,
   with a penalty. */
static int functional(const Signal *S, double penalty, const double *previous, double *next, int64_t *from)
{
  const int64_t n = S->n;
  int64_t live = 0, parts = 0, entered = 0, room = 64;
  Constant *a = malloc(room * sizeof(Constant));
  Part *p = malloc(room * sizeof(Part)), *fresh = malloc(room * sizeof(Part));
  int failed = !a || !p || !fresh;
  for (int64_t r = 1; r <= n && !failed; r++) {
    const double w = S->w ? S->w[r - 1] * S->w[r - 1] : 1, x = S->x[r - 1];
    for (int64_t j = 0; j < live; j++) sample(a + j, w, x);
    for (; entered < r && observed(S, entered, r) >= S->least; entered++) {
      if (!(previous[entered] < INFINITY)) continue;
      if (live + 1 > room || 2 * parts + 3 > room) {
        room = 2 * room + 2 * parts + 3;
        Constant *aa = realloc(a, room * sizeof(Constant));
        if (aa) a = aa;
        Part *pp = realloc(p, room * sizeof(Part));
        if (pp) p = pp;
        Part *ff = realloc(fresh, room * sizeof(Part));
        if (ff) fresh = ff;
        if ((failed = !aa || !pp || !ff)) break;
      }
      Constant *newest = a + live;
      *newest = (Constant){0, 0, previous[entered], entered, 0};
      for (int64_t i = entered; i < r; i++)
        sample(newest, S->w ? S->w[i] * S->w[i] : 1, S->x[i]);
      int64_t count = 0;
#define PUT(from_, to_, who)                                                                   \
  if ((from_) < (to_)) {                                                                       \
    if (count && fresh[count - 1].owner == (who) && fresh[count - 1].high == (from_))          \
      fresh[count - 1].high = (to_);                                                           \
    else fresh[count++] = (Part){(from_), (to_), (who)};                                       \
  }
      if (!parts) PUT(-INFINITY, INFINITY, live)
      for (int64_t i = 0; i < parts; i++) {
        double low, high;
        below(a + p[i].owner, newest, &low, &high);
        low = fmin(fmax(low, p[i].low), p[i].high);
        high = fmax(fmin(high, p[i].high), low);
        PUT(p[i].low, low, live)
        PUT(low, high, p[i].owner)
        PUT(high, p[i].high, live)
      }
      live++;
      Part *swap = p;
      p = fresh, fresh = swap, parts = count;
      for (int64_t j = 0; j < live; j++) a[j].used = 0;
      for (int64_t i = 0; i < parts; i++) a[p[i].owner].used = 1;
      int64_t kept = 0;
      for (int64_t j = 0; j < live; j++)
        if (a[j].used) a[j].used = ++kept;
      for (int64_t i = 0; i < parts; i++) p[i].owner = a[p[i].owner].used - 1;
      for (int64_t j = 0; j < live; j++)
        if (a[j].used) a[a[j].used - 1] = a[j];
      live = kept;
    }
    next[r] = INFINITY;
    for (int64_t j = 0; j < live; j++)
      if (a[j].value + penalty < next[r]) {
        next[r] = a[j].value + penalty;
        if (from) from[r] = a[j].start;
      }
  }
  free(a);
  free(p);
  free(fresh);
  return failed;
}

enum { LAYERS, PENALISED, LAYER, COSTS };

static int one(int64_t mode, const Signal *S, int64_t k, const double *real, int64_t *breaks, double *out)
{
  const int64_t n = S->n, m = n + 1, constants = D == 0 && S->C == 1;
  int failed = 0;
  if (mode == LAYERS) { /* the least error of 1 to k pieces, and breaks of the fewest that are within real[1] */
    double *best = malloc((k + 1) * m * sizeof(double));
    if (!best) return 1;
    for (int64_t i = 0; i <= n; i++) best[i] = i ? INFINITY : 0;
    if (constants)
      for (int64_t q = 1; q <= k && !failed; q++)
        best[q * m] = INFINITY, failed = functional(S, 0, best + (q - 1) * m, best + q * m, NULL);
    else failed = layers(S, k, best);
    int64_t count = 1;
    for (int64_t q = 1; q <= k; q++) {
      out[q - 1] = best[q * m + n];
      if (out[q - 1] < out[count - 1] && !(out[count - 1] <= real[1])) count = q;
    }
    failed = failed || trace(S, count, best, breaks);
    free(best);
  } else if (mode == PENALISED) {
    int64_t *from = malloc(m * sizeof(int64_t)), count = 0;
    double *F = malloc(m * sizeof(double));
    failed = !from || !F;
    if (!failed) {
      F[0] = 0;
      failed = constants ? functional(S, real[0], F, F, from) : penalised(S, real[0], F, from);
    }
    if (!failed) {
      for (int64_t r = n; r > 0; r = from[r]) count++;
      breaks[count] = n;
      for (int64_t r = n, q = count; r > 0; r = from[r]) breaks[--q] = from[r];
    }
    free(from);
    free(F);
  } else if (mode == LAYER) { /* out: the row before, and the new one */
    out[m] = INFINITY;
    failed = constants ? functional(S, 0, out, out + m, NULL) : layers(S, 1, out);
  } else { /* COSTS of the last 1 to n samples */
    failed = scan(S, n - 1, -1, n, D, out, 1, 0);
  }
  return failed;
}

/* B items of n samples and C channels. Returns the number of items that failed for lack of memory. */
int run(int64_t B, int64_t n, int64_t C, const double *x, const double *w, const double *gain, const int64_t *seen,
        int64_t mode, int64_t k, int64_t least, double penalty, double limit, int64_t *breaks, double *out,
        int64_t threads)
{
  const int64_t places = mode == LAYERS ? k + 1 : n + 1;
  const double real[] = {penalty, limit};
  int failed = 0;
#pragma omp parallel for num_threads(threads < B ? threads : B) schedule(dynamic) reduction(+ : failed) if (B > 1)
  for (int64_t b = 0; b < B; b++) {
    const Signal S = {n, C, least, x + b * n * C, w ? w + b * n : NULL, gain, seen ? seen + b * (n + 1) : NULL, 1};
    failed += one(mode, &S, k, real, breaks ? breaks + b * places : NULL, out ? out + b * k : NULL);
  }
  return failed;
}
