"""Hydra finds plugins in this place alone; what they do stands in lottalora.sweeps."""
