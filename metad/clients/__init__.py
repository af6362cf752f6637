"""The calls of mounts: sessions, questions, mutations executed once, leases, locks."""
