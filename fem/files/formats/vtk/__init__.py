"""Files of VTK."""
