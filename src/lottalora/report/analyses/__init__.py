"""What `lottalora analyse` prints and writes: one file for each analysis."""
