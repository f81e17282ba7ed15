"""What is worked out from rows: recovery, and how it stands beside the paper."""
