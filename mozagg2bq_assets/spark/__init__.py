"""The engine on Spark: its session, the job and its tasks, and where these find and leave files.

Nothing of Spark is imported before it is used. What a task does with rows is `parquet`'s.
"""
