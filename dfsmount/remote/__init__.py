"""This client's conversations with metad and chunkds: sessions, retries, batches, hedged reads."""
