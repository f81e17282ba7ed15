"""What README and docs say from rows: the blocks between their markers, the figures, and the pages."""
