"""Benchmarks: ratios to bare SQL, measured in turn in one run. `make bench`; never part of the tests."""
