"""Pictures for the files and for the page, drawn by one code."""
