"""Servers and their disks: who lives, how well they do, and the orders that wait for them."""
