"""The URL of a cloud's API."""

from __future__ import annotations

import ssl
import urllib.request
from urllib.parse import urlsplit

from sttd.errors import ConfigError

SECURE = {"https": True, "wss": True, "http": False, "ws": False}


class BaseUrl:
    """The parts of a `base_url`. `path` has no slash at its end."""

    def __init__(self, setting: str, url: str) -> None:
        """Raises ConfigError, naming the setting, if the URL cannot be used."""
        parts = urlsplit(url)
        try:
            self.scheme = parts.scheme
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
        """Trusts the system's certificates, or those in SSL_CERT_FILE. Made only once, since it takes some 30 ms."""

    def proxy(self) -> str:
        """Return the proxy for this URL from the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY and others), or ""."""
        proxies = urllib.request.getproxies()
        if urllib.request.proxy_bypass(self.host):
            return ""
        return proxies.get(self.scheme) or proxies.get("all", "")
