"""PostgreSQL and pg_dump: connect, find the tables of a partition, dump and count them, read archives and COPY text.

What a row means belongs to `parquet`, where archives are kept to `lake`. This room knows neither.
"""
