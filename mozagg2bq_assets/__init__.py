"""Firefox Telemetry's daily histogram aggregates, from PostgreSQL to BigQuery.

Each folder is a package: its docstring says what belongs there, and imports between packages go one way.
"""
