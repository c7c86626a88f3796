"""Networks of images that solve a family of problems at once."""
