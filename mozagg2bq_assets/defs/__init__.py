"""Dagster's side: assets, checks, partitions, jobs, schedules and resources. The only room that imports Dagster.

Nothing is decided here about data: an asset's body passes resources to `pipeline` and turns results into events.
"""
