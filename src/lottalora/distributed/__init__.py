"""One run in several processes: start them, share its batches and scaffold, collect results."""
