"""Loops over the spans of patches of splines, by sum factorisation."""
