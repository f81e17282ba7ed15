"""The page that needs no network: its sections, their HTML, and all runs."""
