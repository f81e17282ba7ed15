"""What a config may say, and what identifies the run that it describes."""
