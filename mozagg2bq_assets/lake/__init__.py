"""The lake in S3: files, the manifests that name a version's files, and the rules by which versions come and go.

What is in the files, and how they are made, is not known here.
"""
