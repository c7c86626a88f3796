"""Finer meshes from coarse ones: every cell divided, or some of them, with all that a mesh knows."""
