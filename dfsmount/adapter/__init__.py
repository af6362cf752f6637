"""Between pyfuse3 and the vfs: handlers, conversions, and what the kernel is told to forget."""
