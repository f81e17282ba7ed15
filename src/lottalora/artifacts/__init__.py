"""Artifacts of the suite: its models as registered architectures, and the file that a run leaves."""
