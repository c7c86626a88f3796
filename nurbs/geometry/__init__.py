"""NURBS curves, surfaces and volumes: evaluation and derivatives."""
