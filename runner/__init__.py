"""Rehearse, gate, apply, audit and reverse backfills of money in PostgreSQL."""
