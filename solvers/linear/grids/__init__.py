"""Multigrid on grids: the steps between levels, which of them are taken, and the levels."""
