-- What can be asked for: the dates, channels, versions and metrics that are there, and the options of each filter but
-- `label`.
SELECT DISTINCT choice.filter AS filter, choice.value AS value
FROM {histograms}, UNNEST([
    STRUCT('date' AS filter, CAST(date AS STRING) AS value),
    STRUCT('channel' AS filter, channel AS value),
    STRUCT('version' AS filter, version AS value),
    STRUCT('metric' AS filter, metric AS value),
    STRUCT('os' AS filter, os AS value),
    STRUCT('osVersion' AS filter, osVersion AS value),
    STRUCT('child' AS filter, child AS value),
    STRUCT('application' AS filter, application AS value),
    STRUCT('architecture' AS filter, architecture AS value)
]) AS choice
WHERE date >= @start AND date < @end
    AND ds_nodash >= FORMAT_DATE('%Y%m%d', @start) AND ds_nodash < FORMAT_DATE('%Y%m%d', @end)
    AND (@channel IS NULL OR channel = @channel) AND (@version IS NULL OR version = @version)
    AND choice.value IS NOT NULL
ORDER BY filter, value
