"""What metad does by itself from reports of chunkds: repair, trim, reclaim, salvage, compaction."""
