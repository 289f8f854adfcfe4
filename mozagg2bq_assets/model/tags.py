"""Names that Dagster gives to tags and metadata. `defs` and the command share them: the command imports no Dagster."""

# Of a run that takes one partition, or a range of them: the first and the last.
ONE_PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
# Of a failed run: that Dagster will repeat it by itself, and the id of the run that repeats it.
WILL_RETRY = "dagster/will_retry"
RETRIED_AS = "dagster/auto_retry_run_id"

# Of a materialization: the partition's rows.
ROWS_LABEL = "dagster/partition_row_count"
