-- BigQuery's view of histograms (bigquery/histograms.sql) over a Parquet file, in DuckDB's own terms: the view's
-- subquery for each row takes DuckDB a hundred times longer.
SELECT
    strptime(ds_nodash, '%Y%m%d')::DATE AS date,
    ds_nodash, channel, version, os, child, label, metric, osVersion, application, architecture,
    elements[1:len(elements) - 2] AS buckets, elements[-2] AS sum, elements[-1] AS count
FROM (
    SELECT *, CASE
        WHEN contains(aggregate, ',') AND NOT contains(aggregate, 'null') THEN aggregate::JSON::BIGINT[]
    END AS elements
    FROM read_parquet($path)
)
