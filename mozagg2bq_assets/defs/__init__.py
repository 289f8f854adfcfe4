"""Dagster's side: assets, checks, partitions, jobs, schedules and resources. Besides
`definitions` and the demo, nothing else imports Dagster.

Nothing is decided here about data: an asset's body passes resources to `pipeline` and turns results into events.
"""
