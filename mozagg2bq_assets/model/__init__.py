"""What is moved, in plain types: aggregate types and source tables, the 13 columns, partitions, counts, runs.

Nothing here but `files.describe` reads anything outside of memory, and nothing knows how a stage is done.
"""
