"""A partition through its stages, by any orchestrator or none.

`ingest` takes partitions and stages, and yields a result for each; `stages` says how the output of one is
committed. `reconcile` compares what the stages have made. How a dump is taken, a row read or a table loaded is known to
the packages below.
"""
