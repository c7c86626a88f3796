"""Meshes from files that other programs wrote."""
