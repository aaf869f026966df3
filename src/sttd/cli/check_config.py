"""`sttd check-config`: print all settings and where they come from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sttd.cli.options import add_settings, load_settings
from sttd.cli.serve import check
from sttd.config.config import Config
from sttd.config.settings import settings_of, value_of
from sttd.providers.registry import local_config

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser


NAME, HELP = "check-config", "print all settings and where they come from"


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print every setting. Raises ConfigError where sttd would not serve."""
    from sttd.models.store import wanted

    loaded = load_settings(arguments)
    check(loaded.config)
    if local := local_config(loaded.config):
        wanted(local)
    for key, found in settings_of(Config).items():
        print(f"{key} = {_toml(value_of(loaded.config, key))}  # {loaded.origins[key]}; {found.help}")
    for warning in loaded.warnings:
        print(f"sttd: {warning}", file=sys.stderr)
    return 0


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
