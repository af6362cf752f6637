"""Chunks and their replicas: what is believed, wanted, lost or too much, and where it may lie."""
