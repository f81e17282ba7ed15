"""Tasks: what is minimised and what is scored."""
