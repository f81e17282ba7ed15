"""Check a config, and identify the run that it describes."""
