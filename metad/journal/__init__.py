"""The ordered journal of what metad has executed: recorded, replayed, and kept by followers."""
