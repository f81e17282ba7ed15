"""Exports: an artifact as ordinary files that other libraries load, without its seed."""
