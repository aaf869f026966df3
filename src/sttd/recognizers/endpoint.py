"""Where a cloud's API is."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from sttd.errors import ConfigError

SECURE = {"https": True, "wss": True, "http": False, "ws": False}


class Endpoint:
    """A `base_url`, taken apart. `path` has no slash at its end."""

    def __init__(self, setting: str, url: str) -> None:
        """ConfigError, which names the setting, where the URL cannot be used."""
        parts = urlsplit(url)
        try:
            secure = SECURE[parts.scheme]
            self.host = parts.hostname or ""
            self.port = parts.port or (443 if secure else 80)
        except (KeyError, ValueError):
            self.host = ""
        if not self.host or parts.query or parts.username:
            raise ConfigError(f"{setting} = {url!r} is not a URL like https://host/path or wss://host:port")
        self.netloc = parts.netloc
        self.path = parts.path.rstrip("/")
        self.tls = ssl.create_default_context() if secure else None
        """It trusts the system's certificates, or those of SSL_CERT_FILE. Made once: it takes some 30 ms."""
