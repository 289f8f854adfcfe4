"""Firefox Telemetry's daily histogram aggregates, from PostgreSQL to BigQuery."""
