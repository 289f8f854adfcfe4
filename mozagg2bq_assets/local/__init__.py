"""The embedded stack: PostgreSQL, S3 and BigQuery on this machine, its sample data, `make demo` and `make dev`.

The pipeline knows nothing of it; docs/real-services.md says how these servers differ from the real services.
"""
