"""The data of open files: writing through packs and chunks, reading through layouts and caches."""
