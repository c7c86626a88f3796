"""Tessellations and pictures."""
