"""Where settings come from: command line > environment > TOML files > defaults.

An error names the setting, its source and the allowed values.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sttd.config.config import Config
from sttd.config.settings import build, read_toml, settings_of, unknown_key
from sttd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sttd.config.settings import Setting

DEFAULT_FILE = Path("/etc/sttd/sttd.toml")
_ENVIRONMENT_ONLY = {"STTD_CYTHON_DEBUG", "STTD_TOKEN"}  # not settings: of setup.py, of `sttd transcribe`
_FOREIGN = re.compile(r"STTD_(PORT(_\d+_(TCP|UDP)\w*)?|SERVICE_(HOST|PORT\w*)|NAME|ENV_\w+)")
"""Variables that Kubernetes and Docker links set if a service is named sttd."""


@dataclass(frozen=True)
class Loaded:
    """A configuration, and the origin of each key's value."""

    config: Config
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """Messages about ignored environment variables."""


def load(
    command_line: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    providers: tuple[str, ...] = (),
) -> Loaded:
    """Merge all sources of settings.

    `command_line` maps keys to texts. `providers` lists the allowed values of `provider`; empty: any.

    Raises ConfigError, naming the origin and the setting, if a file, a key or a value cannot be used.
    """
    environ = os.environ if environ is None else environ
    known = settings_of(Config)
    values: dict[str, object] = {key: found.default for key, found in known.items()}
    origins = dict.fromkeys(known, "default")
    for key, value, origin in _sources(command_line, environ, file, known):
        if key not in known:
            raise ConfigError(f"{origin}: {unknown_key(key, known)}")
        if key == "provider" and providers and value not in providers:
            raise ConfigError(f"{origin}: Unsupported STT provider: {value}; allowed is one of {', '.join(providers)}")
        try:
            values[key] = known[key].convert(value)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{origin}: {key} = {value!r} is not allowed; allowed is {known[key].allowed()}"
            ) from None
        origins[key] = origin
    return Loaded(build(Config, values), origins, _ignored(environ, known))


def _sources(
    command_line: Mapping[str, str],
    environ: Mapping[str, str],
    file: Path | None,
    known: Mapping[str, Setting],
) -> Iterator[tuple[str, object, str]]:
    """Yield (key, value, origin) in ascending order of precedence."""
    main = file or DEFAULT_FILE
    try:
        there = file is not None or main.exists()
    except OSError as error:  # no access to the folder; starting without its settings could be unsafe
        raise ConfigError(f"{main}: cannot be read: {error.strerror}") from None
    if there:
        yield from read_toml(main)
    for extra in sorted((main.parent / "conf.d").glob("*.toml")):
        yield from read_toml(extra)
    if "STT_PROVIDER" in environ:
        yield "provider", environ["STT_PROVIDER"], "environment STT_PROVIDER"
    by_variable = _variables(known)
    for name in sorted(environ):
        if name in by_variable:
            yield by_variable[name], environ[name], f"environment {name}"
        elif _is_misspelt(name, by_variable):
            close = difflib.get_close_matches(name, by_variable, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"environment: unknown setting {name}{hint}; known: {', '.join(by_variable)}")
    for key, value in command_line.items():
        yield key, value, "command line"


def _variables(known: Iterable[str]) -> dict[str, str]:
    """Map each environment variable to the key that it sets."""
    return {f"STTD_{key.replace('.', '__').upper()}": key for key in known}


def _is_misspelt(name: str, by_variable: Iterable[str]) -> bool:
    """Whether an unknown variable was meant as a setting: it has a section, or a name close to a setting's."""
    if not name.startswith("STTD_") or name in _ENVIRONMENT_ONLY or _FOREIGN.fullmatch(name):
        return False
    return "__" in name or bool(difflib.get_close_matches(name, by_variable, n=1, cutoff=0.8))


def _ignored(environ: Mapping[str, str], known: Iterable[str]) -> tuple[str, ...]:
    by_variable = _variables(known)
    names = sorted(
        name
        for name in environ
        if name.startswith("STTD_") and name not in by_variable and name not in _ENVIRONMENT_ONLY
    )
    return (f"environment: ignored variables that are not settings: {', '.join(names)}",) if names else ()
