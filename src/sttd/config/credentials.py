"""API keys. They come from the environment, a file or systemd's credentials directory, and are never logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sttd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


def api_key(provider: str, file: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the API key of a cloud provider.

    `file` is the provider's setting `key_file`.

    Raises ConfigError, which says where to put the key, if there is none or it cannot be read.
    """
    environ = os.environ if environ is None else environ
    variable = f"{provider.upper()}_API_KEY"
    if environ.get(variable):
        return _checked(environ[variable], variable)
    if file:
        return _read(Path(os.path.expanduser(file)))
    given = environ.get("CREDENTIALS_DIRECTORY")
    if given and (path := Path(given) / f"{provider}.key").exists():
        return _read(path)
    raise ConfigError(
        f"no API key for {provider}: set {variable} in the environment, or put the key into a file that "
        f"{provider}.key_file names, or under systemd into /etc/sttd/credentials/{provider}.key with "
        f"LoadCredential={provider}.key:/etc/sttd/credentials/{provider}.key"
    )


def _read(path: Path) -> str:
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"{path}: the API key cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = "\n"
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where}: is not an API key: it must be one word of printable ASCII characters")
    return key
