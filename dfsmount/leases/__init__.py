"""What this client may cache or change at home, and how it forgets when it no longer may."""
