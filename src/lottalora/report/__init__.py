"""From rows to tables and figures; nothing here trains, and nothing here reads anything but rows."""
