/* Squared errors of polynomial fits to pieces, grown sample by sample or joined piece by piece.

   `D`, the degree, is defined before this text. No normal equations: without weights a fit is extended by the gains of
   `splines/gains.py`; with weights, and where fits of pieces are joined, by Givens rotations, whose leftover is the
   growth of the squared error. Either way it is a sum of squares, so that an offset of the signal costs no digits. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { A = D + 1, TRIANGLE = A * (A + 1) / 2 };

typedef struct {
  int64_t n, C, least;  /* samples, channels, observed samples that a piece needs */
  const double *x;      /* [n][C] */
  const double *w;      /* [n] square roots of weights, NULL for ones */
  const double *gain;   /* [A + 1][n]: 1 - leverage, K_0 ... K_D of N samples at n - N; NULL with weights */
  const int64_t *seen;  /* [n + 1] observed samples before each place, NULL if all are */
  int threads;          /* for this signal alone */
} Signal;

static inline int64_t observed(const Signal *S, int64_t from, int64_t to)
{
  return S->seen ? S->seen[to] - S->seen[from] : to - from;
}

/* Take the row v p = y into the triangular system R p = z; return the square of what is left of y. */
static inline double rotate(double *R, double *z, int64_t C, double *v, double *y)
{
  double left = 0;
  for (int i = 0; i < A; R += A - i, i++) {
    if (v[i] == 0) continue;
    const double length = sqrt(R[0] * R[0] + v[i] * v[i]), c = R[0] / length, s = v[i] / length;
    R[0] = length;
    for (int j = i + 1; j < A; j++) {
      const double r = R[j - i];
      R[j - i] = c * r + s * v[j];
      v[j] = c * v[j] - s * r;
    }
    for (int64_t k = 0; k < C; k++) {
      const double r = z[i * C + k];
      z[i * C + k] = c * r + s * y[k];
      y[k] = c * y[k] - s * r;
    }
  }
  for (int64_t k = 0; k < C; k++) left += y[k] * y[k];
  return left;
}

/* The part of the squared error that a fit of lower degree has more: R is triangular, so it is the tail of z. */
static inline double tail(const double *z, int64_t C, int64_t degree)
{
  double sum = 0;
  for (int64_t k = (degree + 1) * C; k < A * C; k++) sum += z[k] * z[k];
  return sum;
}

/* cost[i * way]: the squared error of the best fit to the i + 1 samples from `start` on, in direction `step`, on top of
   what is there if `add`. */
static int scan(const Signal *S, int64_t start, int64_t step, int64_t length, int64_t degree, double *cost, int64_t way,
                int add)
{
  const int64_t C = S->C, n = S->n;
  double *state = calloc(A * C + C, sizeof(double)), *y = state + A * C, R[TRIANGLE] = {0}, v[A], error = 0;
  if (!state) return 1;
  for (int64_t i = 0; i < length; i++, cost += way) {
    const int64_t r = start + step * i;
    const double *x = S->x + r * C;
    double now;
    if (D == 0 && S->gain) { /* the same without a table */
      for (int64_t k = 0; k < C; k++) {
        const double e = x[k] - state[k];
        error += e * e * i / (i + 1);
        state[k] += e / (i + 1);
      }
      now = error;
    } else if (S->gain && degree == D) {
      const double *gain = S->gain + n - 1 - i;
      for (int64_t k = 0; k < C; k++) {
        double *p = state + k * A; /* the polynomial at its end, by binomials of the distance from there */
        for (int j = D - 1; j >= 0; j--) p[j] -= p[j + 1];
        const double e = x[k] - p[0];
        error += gain[0] * e * e;
        for (int j = 0; j < A; j++) p[j] += gain[(j + 1) * n] * e;
      }
      now = error;
    } else {
      const double w = S->w ? S->w[r] : 1, t = (i + 0.5) / n;
      if (w != 0) {
        v[0] = w;
        for (int j = 1; j < A; j++) v[j] = v[j - 1] * t;
        for (int64_t k = 0; k < C; k++) y[k] = w * x[k];
        error += rotate(R, state, C, v, y);
      }
      now = error + tail(state, C, degree);
    }
    *cost = add ? *cost + now : now;
  }
  free(state);
  return 0;
}

/* The best place to break [a, c) in two, with the error there; -1 where none leaves both sides enough samples.
   `now`, if given, is a place to stay at unless another one is better. */
static int64_t best_break(const Signal *S, int64_t a, int64_t c, int64_t left, int64_t right, const int64_t *least,
                          int64_t now, double *error, double *unbroken)
{
  const int64_t length = c - a;
  double *cost = malloc((length + 1) * sizeof(double)); /* of both sides of a + 1, a + 2, ... */
  int64_t best = -1;
  *error = INFINITY;
  *unbroken = INFINITY;
  if (!cost) return -2;
  if (scan(S, a, 1, length, left, cost, 1, 0) || scan(S, c - 1, -1, length - 1, right, cost + length - 2, -1, 1))
    best = -2;
  else {
    *unbroken = cost[length - 1];
    if (now > a) *error = cost[now - a - 1], best = now;
    for (int64_t i = 1; i < length; i++)
      if (cost[i - 1] < *error && observed(S, a, a + i) >= least[0] && observed(S, a + i, c) >= least[1])
        *error = cost[i - 1], best = a + i;
  }
  free(cost);
  return best;
}
