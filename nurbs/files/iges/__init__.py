"""IGES files, version 5.3."""
