/* Cells along a space-filling curve, and what blocks of G of them have of a map "E A" from cells to nodes.

   Step 0 orders E cells by positions x "E D". Step 1 lists the different nodes of each block one after another (`node`,
   from `start` on) and says which of them each local node of each cell is (`local` "block A G", where a block's last
   cell stands in for those that it lacks); N nodes have a `stamp` of −1 and a `slot`. Step 2 lists for each node where
   it stands in `node`: `place`, from `first` on. */
static void sort(int64_t E, uint32_t *key, int32_t *order, uint32_t *spare, int32_t *other, int shift)
{
  int64_t count[2049] = {0};
  for (int64_t e = 0; e < E; e++) count[(key[e] >> shift & 2047) + 1]++;
  for (int64_t j = 0; j < 2048; j++) count[j + 1] += count[j];
  for (int64_t e = 0; e < E; e++) {
    const int64_t to = count[key[e] >> shift & 2047]++;
    spare[to] = key[e];
    other[to] = order[e];
  }
}

static void sorted(int64_t E, int64_t D, const double *x, int32_t *order, int32_t *room)
{
  int32_t *key = room, *spare = room + E, *other = room + 2 * E;
  double low[3], extent = 0;
  for (int64_t d = 0; d < D; d++) {
    double high = low[d] = x[d];
    for (int64_t e = 0; e < E; e++) {
      const double v = x[e * D + d];
      low[d] = v < low[d] ? v : low[d];
      high = v > high ? v : high;
    }
    extent = high - low[d] > extent ? high - low[d] : extent;
  }
  const int bits = D == 1 ? 31 : D == 2 ? 16 : 10;
  const double scale = extent > 0 ? (double)((1u << bits) - 1) / extent : 0;
  for (int64_t e = 0; e < E; e++) {
    uint32_t found = 0;
    for (int64_t d = 0; d < D; d++) {
      const uint32_t v = (uint32_t)((x[e * D + d] - low[d]) * scale);
      for (int j = 0; j < bits; j++) found |= (v >> j & 1) << (j * D + d);
    }
    key[e] = (int32_t)found;
    order[e] = (int32_t)e;
  }
  sort(E, (uint32_t *)key, order, (uint32_t *)spare, other, 0);
  sort(E, (uint32_t *)spare, other, (uint32_t *)key, order, 11);
  sort(E, (uint32_t *)key, order, (uint32_t *)spare, other, 22);
  for (int64_t e = 0; e < E; e++) order[e] = other[e];
}

int run(int64_t step, int64_t E, int64_t D, const double *x, int32_t *order, int32_t *room, int64_t blocks,
        int64_t A, int64_t N, int64_t G, const int32_t *bounds, const int64_t *dofs, int32_t *stamp, int32_t *slot, int32_t *start, int32_t *node, int16_t *local,
        int32_t *first, int32_t *place, int64_t threads)
{
  if (step == 0) sorted(E, D, x, order, room);
  if (step == 1) {
    int32_t m = 0;
    for (int64_t b = 0; b < blocks; b++) {
      start[b] = m;
      for (int64_t i = 0; i < G; i++) {
        const int64_t last = bounds[b + 1] - 1, e = order[bounds[b] + i < last ? bounds[b] + i : last];
        for (int64_t a = 0; a < A; a++) {
          const int64_t n = dofs[e * A + a];
          if (stamp[n] != b) {
            stamp[n] = (int32_t)b;
            slot[n] = m - start[b];
            node[m++] = (int32_t)n;
          }
          local[(b * A + a) * G + i] = (int16_t)slot[n];
        }
      }
    }
    start[blocks] = m;
  }
  if (step == 2) {
    const int64_t m = start[blocks];
    for (int64_t j = 0; j < m; j++) first[node[j] + 1]++;
    for (int64_t n = 0; n < N; n++) {
      first[n + 1] += first[n];
      slot[n] = first[n];
    }
    for (int64_t j = 0; j < m; j++) place[slot[node[j]]++] = (int32_t)j;
  }
  return 0;
}
