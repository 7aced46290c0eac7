"""Source formats and interfaces: bytes in, typed rows and rejects out; no database."""
