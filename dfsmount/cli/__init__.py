"""The `dfs` command: what a person types to run, look at and mount a cluster."""
