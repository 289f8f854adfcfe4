"""The lake in S3: files, the manifests that name a version's files, and the rules by which versions come and go.

The lake does not know what is in the files. All it knows of how they were made is what the manifests record.
"""
