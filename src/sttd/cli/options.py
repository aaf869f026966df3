"""What several commands share: the parser, and the options from which settings are read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from sttd.config.config import Loaded, load
from sttd.errors import ConfigError
from sttd.providers.registry import provider_names

USAGE = 64


class Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE of sysexits.h where the command line makes no sense."""

    def error(self, message: str) -> NoReturn:
        """See argparse."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def common_options() -> Parser:
    """Return a parent parser for commands that read settings."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", metavar="FILE", help="TOML file (default: /etc/sttd/sttd.toml if there)")
    common.add_argument("--provider", metavar="NAME", help=f"one of {', '.join(provider_names())}")
    common.add_argument("--model", metavar="NAME|DIR", help="catalog name or folder of a model")
    common.add_argument("--language", metavar="CODE", help="language of sessions that name none")
    common.add_argument("--listen", metavar="HOST:PORT", action="append", help="address to listen on; may be repeated")
    common.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    common.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="any setting, such as endpoint.min_silence_ms=300"
    )
    return common


def load_settings(arguments: argparse.Namespace) -> Loaded:
    """Return the settings from all sources. Raises ConfigError."""
    given = vars(arguments)
    values: dict[str, str] = {key: given[key] for key in ("provider", "model", "language") if key in given}
    if "listen" in given:
        values["server.listen"] = ",".join(given["listen"])
    if "log_level" in given:
        values["log.level"] = given["log_level"]
    for assignment in given.get("set", ()):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: is not KEY=VALUE")
        values[key] = value
    file = Path(given["config"]) if "config" in given else None
    return load(values, file=file, providers=provider_names())
