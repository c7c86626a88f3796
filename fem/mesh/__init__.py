"""Meshes: cells and their topology, grids by arithmetic, files, geometry at points, and where a point lies."""
