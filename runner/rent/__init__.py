"""Rent history and electricity bills: reading and verifying the files."""
