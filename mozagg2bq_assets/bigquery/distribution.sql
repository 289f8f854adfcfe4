-- The distribution of a metric on one date, by label: its evolution over that date alone.
SELECT label, row_count, sum, count, buckets
FROM (
{evolution}
)
ORDER BY label
