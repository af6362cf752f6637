"""Locks of this host's processes: asked of metad, held while the session lasts."""
