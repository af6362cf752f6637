"""Deterministic simulation: a whole cluster, its faults and its users in one process, by seed.

docs/simulation.md tells how to run it, how to replay a seed, and how to add a fault or a bug.
"""
