"""Loops over cells: a density traced to a program, and the program run, compiled or not, cell after cell."""
