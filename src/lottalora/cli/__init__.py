"""Commands: `python -m lottalora COMMAND`, the dry run and the help of run.py."""
