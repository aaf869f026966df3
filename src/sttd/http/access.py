"""Who may connect: tokens, and which web pages. Decided before an upgrade, from the request's head alone.

A browser names the page that asks in `Origin` (RFC 6455, 10.2); a request without that header is not from a browser. A
page of another site must not use a daemon without its visitor's knowledge, neither by the daemon's address nor by DNS
rebinding, where a name of the attacker's leads to that address. Therefore a page must be allowed, and the host name in
the request must be one of this machine's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import tomllib
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from sttd.errors import ConfigError
from sttd.http.messages import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import AccessConfig

SUBPROTOCOL = "sttd.v1"
TOKEN_SUBPROTOCOL = "sttd.token."  # noqa: S105
LEAST_TOKEN = 16


def own_names() -> frozenset[str]:
    """Return the names of this machine: its host name, and its names on the local network."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"})


@dataclass(frozen=True)
class Holder:
    """The holder of a token, and the maximum number of its sessions at once (0: no limit)."""

    name: str
    digest: bytes
    most: int = 0


ANYBODY = Holder("", b"")


@dataclass(frozen=True)
class Grant:
    """The permission to open a session."""

    holder: Holder
    """The holder of the token; ANYBODY if no token is needed."""
    query: str
    """The query of the request, without the token."""
    subprotocol: str = ""
    """The subprotocol to select from those that the client offered; empty: none."""


@dataclass(frozen=True)
class Access:
    """The rules. A reload replaces them as a whole."""

    config: AccessConfig
    holders: Sequence[Holder] = ()
    names: frozenset[str] = field(default_factory=own_names)

    @classmethod
    def read(cls, config: AccessConfig, environ: Mapping[str, str] | None = None) -> Access:
        """Return the rules with the tokens from their file. Raises ConfigError if the file cannot be used."""
        return cls(config, _read_tokens(config.tokens_file, os.environ if environ is None else environ))

    @property
    def open(self) -> bool:
        """Whether clients need no token."""
        return not self.holders

    def check_address(self, host: str) -> None:
        """Raise ConfigError if a listener at `host` would serve other machines without a token."""
        if self.open and not self.config.allow_unauthenticated and not is_loopback(host):
            raise ConfigError(
                f"server.listen: {host} can be reached from other machines, and there are no tokens: name a file of "
                "them in access.tokens_file, or set access.allow_unauthenticated = true"
            )

    def admit(self, headers: Mapping[str, str], query: str, *, local: bool) -> Grant:
        """Return the permission to open a session. `local`: the client is on this machine. Raises Refused."""
        offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
        token, query = self._token(headers, offered, query)
        holder = self._holder(token) if self.holders else ANYBODY
        self.admit_page(headers, local=local)
        return Grant(holder, query, SUBPROTOCOL if SUBPROTOCOL in offered else "")

    def admit_page(self, headers: Mapping[str, str], *, local: bool) -> None:
        """Raise Refused if the request comes from a web page that may not connect. A token is looked at elsewhere."""
        if (origin := headers.get("origin")) is not None:
            self._check_origin(origin, headers.get("host", ""), trusted=bool(self.holders), local=local)

    def admit_plain(self, headers: Mapping[str, str], *, local: bool) -> None:
        """Raise Refused if a request for data about the daemon may not be answered."""
        self._check_host(headers.get("host", ""))
        if self.holders and not local:
            self._holder(self._token(headers, (), "")[0])

    def _token(self, headers: Mapping[str, str], offered: Sequence[str], query: str) -> tuple[str, str]:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip(), query
        for name in offered:
            if name.startswith(TOKEN_SUBPROTOCOL):
                return _from_base64url(name.removeprefix(TOKEN_SUBPROTOCOL)), query
        if self.config.query_token:
            pairs = parse_qsl(query, keep_blank_values=True)
            given = [value for key, value in pairs if key == "token"]
            if given:
                return given[-1], urlencode([pair for pair in pairs if pair[0] != "token"])
        return "", query

    def _holder(self, token: str) -> Holder:
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found = None
        for holder in self.holders:  # all of them: how long it takes says nothing about which one fits
            if hmac.compare_digest(digest, holder.digest):
                found = holder
        if found is None:
            message = "A token is needed: Authorization: Bearer TOKEN." if not token else "This token is not known."
            raise Refused(HTTPStatus.UNAUTHORIZED, "token", message, {"WWW-Authenticate": "Bearer"})
        return found

    def _check_origin(self, origin: str, host: str, *, trusted: bool, local: bool) -> None:
        """Raise Refused if the page may not connect. `trusted`: the page has shown a token."""
        if origin in self.config.origins:
            return
        page = _host_of(origin)
        if not self.config.origins:
            if trusted:
                return
            if local and is_loopback(page):
                return
            if origin == "file://":  # no browser sends it: a program's library does, such as one for the ESP32
                return
        if page and page == _host_of(f"//{host}"):
            self._check_host(host)
            return
        whose = "A page without an address, such as a local file, (Origin: null)"
        what = whose if origin == "null" else f"The page {origin[:200]!r}"
        message = f"{what} may not connect; to allow it set access.origins = [{json.dumps(origin[:200])}] in sttd.toml."
        if origin == "null":
            message += " That lets frames of any web page in, too; better serve the page from localhost."
        raise Refused(HTTPStatus.FORBIDDEN, "origin", message)

    def _check_host(self, host: str) -> None:
        name = _host_of(f"//{host}")
        if not name or is_address(name) or is_loopback(name) or name in self.names or name in self.config.hosts:
            return
        message = f"{name[:200]!r} is not known as a name of this machine; it can be added to access.hosts."
        raise Refused(HTTPStatus.FORBIDDEN, "host", message)


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address leads to this machine only."""
    name = host.strip("[]").partition("%")[0].lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_address(host: str) -> bool:
    """Return whether the host is an IP address, which no name server can have given."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return "?"


def _from_base64url(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def _read_tokens(file: str, environ: Mapping[str, str]) -> tuple[Holder, ...]:
    given = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(file) if file else Path(given or "/nonexistent") / "tokens"
    try:
        path = path.expanduser()
        entries = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if not file:
            return ()
        raise ConfigError(f"{path}: the tokens cannot be read: there is no such file") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: the tokens cannot be read: {reason}") from None
    except ValueError as error:  # no TOML, no UTF-8
        raise ConfigError(f'{path}: {error}; a line of it is like: kitchen = "a long random text"') from None
    holders = tuple(_read_holder(str(path), name, entry) for name, entry in entries.items())
    if not holders:
        raise ConfigError(f'{path}: there is no token in it; a line of it is like: kitchen = "a long random text"')
    if len({holder.digest for holder in holders}) < len(holders):
        raise ConfigError(f"{path}: two names have the same token")
    return holders


def _read_holder(path: str, name: str, entry: object) -> Holder:
    if isinstance(entry, str):
        entry = {"token": entry}
    if not isinstance(entry, dict) or not set(entry) <= {"token", "sessions"}:
        raise ConfigError(f'{path}: {name}: it is "a token", or {{ token = "a token", sessions = 4 }}')
    token, most = entry.get("token"), entry.get("sessions", 0)
    if not isinstance(token, str) or len(token) < LEAST_TOKEN or not token.isprintable() or token != token.strip():
        raise ConfigError(f"{path}: {name}: a token is a text of at least {LEAST_TOKEN} characters")
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise ConfigError(f"{path}: {name}: sessions is a whole number, or 0 for any number")
    return Holder(name, hashlib.sha256(token.encode()).digest(), most)
