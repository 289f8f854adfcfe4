"""The lake in S3: files, the manifests that name a version's files, and the rules by which versions come and go.

What is in the files is not known here, and of how they are made only what manifests record.
"""
