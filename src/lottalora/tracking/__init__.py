"""Watching runs while they train. Rows stay the truth: no score is ever read from a logger."""
