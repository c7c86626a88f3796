"""Systems of several fields, solved by what is known of their blocks."""
