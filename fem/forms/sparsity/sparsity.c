/* Rows, columns and positions of a sparse matrix from the dofs of cells; `P` is the type of positions.

   `dofs` are those of all cells, block after block: block k begins at base[k], and its cells have width[k] each. For each
   dof, `list` holds from start[dof] on where the cells that have it begin. Rows are found one after another with a stamp
   on every column; since the pattern is symmetric, its transpose is the same with sorted columns. With `fill` = 0 only
   `crow` is made, which tells how many columns there are. Element matrices of block k begin at first[k]. */
static inline int64_t block_of(int64_t cell, int64_t blocks, const int64_t *base)
{
  int64_t k = 0;
  while (k + 1 < blocks && cell >= base[k + 1]) k++;
  return k;
}

int run(int64_t fill, int64_t n, int64_t blocks, const int64_t *base, const int64_t *width, const int64_t *dofs,
        int64_t *start, int64_t *list, int64_t *stamp, int64_t *crow, int64_t *column, int64_t *unsorted, P *position,
        const int64_t *first, int64_t threads)
{
  if (!fill) {
    for (int64_t k = 0; k < blocks; k++)
      for (int64_t m = base[k]; m < base[k + 1]; m++) start[dofs[m] + 1]++;
    for (int64_t row = 0; row < n; row++) start[row + 1] += start[row];
    for (int64_t row = 0; row < n; row++) stamp[row] = start[row];
    for (int64_t k = 0; k < blocks; k++)
      for (int64_t cell = base[k]; cell < base[k + 1]; cell += width[k])
        for (int64_t a = 0; a < width[k]; a++) list[stamp[dofs[cell + a]]++] = cell;
  }
  for (int64_t row = 0; row < n; row++) stamp[row] = -1;
  for (int64_t row = 0; row < n; row++) {
    int64_t found = fill ? crow[row] : 0;
    for (int64_t m = start[row]; m < start[row + 1]; m++) {
      const int64_t *own = dofs + list[m], count = width[block_of(list[m], blocks, base)];
      for (int64_t a = 0; a < count; a++)
        if (stamp[own[a]] != row) {
          stamp[own[a]] = row;
          if (fill) unsorted[found] = own[a];
          found++;
        }
    }
    if (!fill) crow[row + 1] = crow[row] + found;
  }
  if (!fill) return 0;
  for (int64_t row = 0; row < n; row++) stamp[row] = crow[row];
  for (int64_t row = 0; row < n; row++)
    for (int64_t m = crow[row]; m < crow[row + 1]; m++) column[stamp[unsorted[m]]++] = row;
  for (int64_t row = 0; row < n; row++) {
    for (int64_t m = crow[row]; m < crow[row + 1]; m++) stamp[column[m]] = m;
    for (int64_t m = start[row]; m < start[row + 1]; m++) {
      const int64_t cell = list[m], k = block_of(cell, blocks, base), count = width[k];
      P *matrix = position + first[k] + (cell - base[k]) * count;
      for (int64_t a = 0; a < count; a++)
        if (dofs[cell + a] == row)
          for (int64_t b = 0; b < count; b++) matrix[a * count + b] = (P)stamp[dofs[cell + b]];
    }
  }
  return 0;
}
