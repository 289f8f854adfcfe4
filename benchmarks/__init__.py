"""Benchmarks: what the documentation gives figures for, measured side by side. `make bench` runs them."""
