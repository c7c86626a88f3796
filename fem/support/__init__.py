"""What knows no finite elements: compilation, files, trainings."""
