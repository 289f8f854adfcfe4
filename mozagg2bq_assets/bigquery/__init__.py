"""BigQuery: the two tables, loads that replace one partition each, counts, and views with the questions to them.

Where the rows come from is not known here.
"""
