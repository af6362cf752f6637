"""The invariants of the database: checked, and mended where that needs no guess."""
