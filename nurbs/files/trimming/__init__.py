"""Pieces of curves and surfaces, and faces, as patches."""
