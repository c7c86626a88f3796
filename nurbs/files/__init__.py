"""Geometry files, one format each."""
