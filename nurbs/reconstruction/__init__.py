"""Surfaces from point clouds by a network that needs no labels."""
