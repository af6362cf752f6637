"""Everything that crosses the network between the parts of dfs, defined once."""
