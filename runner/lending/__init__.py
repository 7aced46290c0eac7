"""Schedules and payments of the processor, and the other ledger."""
