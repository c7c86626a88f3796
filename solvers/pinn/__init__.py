"""The baseline: networks of the coordinates."""
