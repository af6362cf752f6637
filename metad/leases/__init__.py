"""Who may cache or change what at home: the pure tables behind the coherence of clients."""
