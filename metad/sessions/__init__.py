"""The sessions of clients as rows, and the streams by which they are told things."""
