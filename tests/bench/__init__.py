"""Benchmarks: ``python -m tests.bench engine|pipeline``. They hold figures; no test is timed."""
