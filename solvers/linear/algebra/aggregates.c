/* Aggregates of the nodes of a graph, whose edges are the entries of a matrix with size² ≥ theta² size_ii size_jj.

   Roots are found in the given order: a node is one if no node within two edges of it is. Their neighbours join them, and
   then all others join those neighbours, each the one that it is coupled to most. Isolated nodes belong to none. */
#define EDGE(i, m) (column[m] != i && square[m] >= theta2 * own[i] * own[column[m]] && square[m] > 0)

int run(int64_t n, double theta2, const int32_t *crow, const int32_t *column, const double *square, const double *own,
        const int64_t *order, int32_t *aggregate, int32_t *before, int64_t threads)
{
  int32_t count = 0;
  for (int64_t i = 0; i < n; i++) aggregate[i] = -1;
  for (int64_t k = 0; k < n; k++) { /* before[i] = 1: i has an edge to a root, or is one */
    const int64_t i = order[k];
    int near = before[i], edges = 0;
    for (int64_t m = crow[i]; m < crow[i + 1] && !near; m++)
      if (EDGE(i, m)) near = before[column[m]], edges = 1;
    if (near || !edges) continue;
    aggregate[i] = count++, before[i] = 1;
    for (int64_t m = crow[i]; m < crow[i + 1]; m++)
      if (EDGE(i, m)) before[column[m]] = 1;
  }
  for (int pass = 0; pass < 2; pass++) {
    for (int64_t i = 0; i < n; i++) before[i] = aggregate[i];
    for (int64_t i = 0; i < n; i++)
      if (before[i] < 0) {
        double most = 0;
        for (int64_t m = crow[i]; m < crow[i + 1]; m++)
          if (EDGE(i, m) && before[column[m]] >= 0 && square[m] / own[column[m]] > most)
            most = square[m] / own[column[m]], aggregate[i] = before[column[m]];
      }
  }
  return count;
}
