"""Firefox Telemetry's daily histogram aggregates, from PostgreSQL to BigQuery.

Each folder is a room: its docstring says what belongs there, and imports go one way between them.
"""
