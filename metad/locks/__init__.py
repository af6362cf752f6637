"""Advisory locks (flock, POSIX ranges) as pure tables: granted, queued, refused, released."""
