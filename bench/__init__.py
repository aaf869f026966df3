"""Benchmarks: `python -m bench --help`, and README.md beside this file."""
