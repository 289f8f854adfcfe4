"""The command `mozagg2bq`: a file for each group of commands, loaded when one of them is called.

Commands read arguments and print; what they do is a call of the packages below. The client of Dagster's GraphQL is
here, since nothing else speaks to a running Dagster.
"""
