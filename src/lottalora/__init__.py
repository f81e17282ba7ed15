"""lottalora: low-rank adapters on frozen random networks.

The library is `lottalora.scaffold`; everything else here is the suite that measures it.
"""

from pathlib import Path

CONF = Path(__file__).parent / "conf"  # of a repository, a link to the folder conf beside run.py
