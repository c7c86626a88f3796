"""Formats of mesh files that are read here."""
