"""What runs leave on disk: rows, claims on cells, records of failures; and how files are written."""
