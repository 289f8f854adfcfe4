-- The evolution of a metric, by date and label: histograms added up element by element, and their sums and counts.
-- Where histograms differ in length, what the shorter one lacks counts as zero. A total beyond INT64 is an error. n
-- numbers the elements: -2 is a histogram's sum, -1 its count, and buckets begin with 0. The cast tells sqlglot that n
-- is an integer: only then does sqlglot turn it into an index that counts from 1, for DuckDB.
WITH totals AS (
    SELECT
        date, label, n, COUNT(*) AS row_count,
        SUM(CAST(CASE n WHEN -2 THEN sum WHEN -1 THEN count ELSE buckets[OFFSET(CAST(n AS INT64))] END AS NUMERIC)) AS total
    FROM {histograms}, UNNEST(GENERATE_ARRAY(-2, ARRAY_LENGTH(buckets) - 1)) AS n
    WHERE date >= @start AND date < @end
        AND ds_nodash >= FORMAT_DATE('%Y%m%d', @start) AND ds_nodash < FORMAT_DATE('%Y%m%d', @end)
        AND channel = @channel AND version = @version AND metric = @metric
        AND (@os IS NULL OR os = @os)
        AND (@osVersion IS NULL OR osVersion = @osVersion)
        AND (@child IS NULL OR child = @child)
        AND (@label IS NULL OR label = @label)
        AND (@application IS NULL OR application = @application)
        AND (@architecture IS NULL OR architecture = @architecture)
    GROUP BY date, label, n
)
SELECT
    date, label,
    MAX(row_count) AS row_count,
    CAST(MAX(IF(n = -2, total, NULL)) AS INT64) AS sum,
    CAST(MAX(IF(n = -1, total, NULL)) AS INT64) AS count,
    ARRAY_AGG(IF(n >= 0, CAST(total AS INT64), NULL) IGNORE NULLS ORDER BY n) AS buckets
FROM totals
GROUP BY date, label
ORDER BY date, label
