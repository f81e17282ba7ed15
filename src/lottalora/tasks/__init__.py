"""Tasks: losses and scores."""
