"""PostgreSQL and pg_dump: connect, find the tables of a partition, dump and count them, read archives and COPY text.

Converting rows belongs to `parquet`, storing archives to `lake`. Only `tables.content_sum` knows the 13 columns.
"""
