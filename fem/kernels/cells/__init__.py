"""Loops over the cells of any mesh."""
