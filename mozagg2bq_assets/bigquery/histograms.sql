-- A row's `aggregate` as numbers: buckets, sum and count. {aggregates} is a type's table.
--
-- The JSON is parsed once a row. A histogram that is NULL, has fewer than two elements or has a NULL among them gets
-- NULL in all three columns. The other columns are the table's, so that a filter on them reads the partitions and
-- clusters that it needs.
SELECT
    date, ds_nodash, channel, version, os, child, label, metric, osVersion, application, architecture,
    IF(is_whole, ARRAY(
        SELECT CAST(elements[OFFSET(n)] AS INT64)
        FROM UNNEST(GENERATE_ARRAY(0, ARRAY_LENGTH(elements) - 3)) AS n
        ORDER BY n
    ), NULL) AS buckets,
    IF(is_whole, CAST(elements[SAFE_OFFSET(ARRAY_LENGTH(elements) - 2)] AS INT64), NULL) AS sum,
    IF(is_whole, CAST(elements[SAFE_OFFSET(ARRAY_LENGTH(elements) - 1)] AS INT64), NULL) AS count
FROM (
    SELECT *, ARRAY_LENGTH(elements) >= 2 AND STRPOS(aggregate, 'null') = 0 AS is_whole
    FROM (SELECT *, _PARTITIONDATE AS date, JSON_VALUE_ARRAY(aggregate) AS elements FROM {aggregates})
)
