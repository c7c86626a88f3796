"""Pictures and files of meshes and fields."""
