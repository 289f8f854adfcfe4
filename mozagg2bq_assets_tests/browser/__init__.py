"""Dagster's pages in a real browser, as an operator uses them."""
