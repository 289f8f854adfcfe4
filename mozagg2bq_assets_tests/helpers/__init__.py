"""What several tests use: rows as PostgreSQL and Parquet have them, engines, runs of Dagster, generated days."""
