"""Labels in files, and the tags of meshes that they become."""
