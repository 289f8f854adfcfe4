"""BigQuery: the two tables, loads that replace one partition each, and counts of what is there.

Where the rows come from is not known here.
"""
