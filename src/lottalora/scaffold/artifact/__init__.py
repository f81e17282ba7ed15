"""Artifacts: a model as one file of seed and adapters. docs/format.md defines the format."""
