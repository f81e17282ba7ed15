"""Files of finished and running runs: rows, claims on cells, records of failures."""
