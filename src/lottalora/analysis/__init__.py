"""Numbers computed from rows: recovery, statistics, and the comparison with the paper."""
