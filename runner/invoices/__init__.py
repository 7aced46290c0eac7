"""The historical invoice catalogue: reading it, and its originals."""
