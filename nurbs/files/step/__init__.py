"""STEP files, ISO 10303-21."""
