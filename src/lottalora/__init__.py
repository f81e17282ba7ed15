"""lottalora: low-rank adapters on frozen random networks.

The library is `lottalora.scaffold`; everything else here is the suite that measures it.
"""
