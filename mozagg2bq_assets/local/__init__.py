"""The embedded stack: PostgreSQL, S3 and BigQuery on this machine, its sample data, `make demo` and `make dev`.

It differs from production in endpoints and credentials alone. The pipeline knows nothing of it.
"""
