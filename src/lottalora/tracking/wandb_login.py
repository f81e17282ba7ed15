"""Whether this machine is logged in to W&B and can reach it; the package wandb is not imported for that."""

import configparser
import netrc
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 3.0  # seconds without an answer
LOG_IN = (
    "type `wandb login`, or choose logger.mode=offline and send the runs later: `python -m lottalora sync`"
)


def server() -> str:
    """The address of the server: WANDB_BASE_URL, what `wandb login --host` wrote, or W&B's own."""
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(Path(os.environ.get("WANDB_CONFIG_DIR", Path.home() / ".config" / "wandb"), "settings"))
    except (configparser.Error, OSError):
        pass  # wandb itself will say so
    written = settings.get("default", "base_url", fallback="https://api.wandb.ai")
    return os.environ.get("WANDB_BASE_URL") or written


def has_key() -> bool:
    """Whether a key for this server lies where W&B looks for it. The key itself stays there."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return (
            netrc.netrc(os.environ.get("NETRC", Path.home() / ".netrc")).authenticators(host(server()))
            is not None
        )
    except (netrc.NetrcParseError, OSError):
        return False


def reachable() -> bool:
    """Whether the server, or the proxy that leads there, takes a connection."""
    address = urlsplit(server())
    proxy = os.environ.get(f"{address.scheme}_proxy") or os.environ.get(f"{address.scheme}_proxy".upper())
    target = urlsplit(proxy) if proxy else address
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def host(address: str) -> str:
    """Return the host of a URL, or the address itself."""
    return urlsplit(address).hostname or address
