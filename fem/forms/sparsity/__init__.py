"""Which entries of a sparse matrix element matrices go to."""
