"""Names, inodes, attributes, and the extents of files: what a POSIX file system is made of."""
