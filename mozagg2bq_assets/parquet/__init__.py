"""Rows: from COPY text to one Parquet file with the 13 columns, exact to the row.

Here are the protocol that every engine follows, the default engine and its SQL, the exact reader of jsonb text, and
the joining of files. Where dumps come from and where files go, the callers say.
"""
