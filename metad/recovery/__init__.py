"""Snapshots of the database, making it again from what chunkds keep, and the hold afterwards."""
