"""What several commands share: the parser, and the options from which settings are read."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sttd.config.config import Config
from sttd.config.loading import Loaded, load
from sttd.config.settings import settings_of
from sttd.errors import ConfigError
from sttd.models.catalog import catalog
from sttd.providers.registry import provider_names

if TYPE_CHECKING:
    from collections.abc import Iterable

USAGE = 64
URL = "ws://127.0.0.1:3000/ws/stt"
"""Where the commands look for a daemon."""
FILES, FOLDERS = "FILE", "DIRECTORY"
"""What a shell completes an argument with: see `completed`."""


class Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE of sysexits.h where the command line makes no sense, and guesses what was meant."""

    def error(self, message: str) -> NoReturn:
        """See argparse."""
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message):
            message += suggestion(wrong[1], re.findall(r"[^\s',]+", wrong[2]))
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")

    def options(self) -> list[str]:
        """Return the long options."""
        return re.findall(r"--[a-z][a-z-]*", self.format_help())


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` if a word is close to a known one, else nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def completed(action: argparse.Action, what: Any) -> None:
    """Say what a shell completes an argument with: FILES, FOLDERS, or a list of words."""
    if shtab := sys.modules.get("shtab"):  # `sttd completion` imports it; all else does without
        words = isinstance(what, list)
        vars(action)["complete"] = shtab.cmd(r"printf '%s\n' " + " ".join(what)) if words else vars(shtab)[what]


def model_names() -> list[str]:
    """Return the names in the catalog."""
    return list(catalog())


def add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the options of a command that reads settings: those of `names`, by default all."""
    group = parser.add_argument_group("settings")
    providers = list(provider_names())
    levels = ["debug", "info", "warning", "error"]
    keys = [f"{key}=" for key in settings_of(Config)]
    for name, metavar, action, text, words in (
        ("--config", "FILE", "store", "TOML file (default: /etc/sttd/sttd.toml if there)", FILES),
        ("--provider", "NAME", "store", f"one of {', '.join(providers)}", providers),
        ("--model", "NAME|DIR", "store", "catalog name or folder of a model", model_names()),
        ("--language", "CODE", "store", "language of sessions that name none", []),
        ("--listen", "HOST:PORT", "append", "address to listen on; may be repeated", []),
        ("--log-level", "LEVEL", "store", "debug, info, warning or error", levels),
        ("--set", "KEY=VALUE", "append", "any setting, such as endpoint.min_silence_ms=300", keys),
    ):
        if names and name not in names:
            continue
        added = group.add_argument(name, metavar=metavar, action=action, help=text, default=argparse.SUPPRESS)
        if words:
            completed(added, words)


def token() -> str:
    """Return the token that the daemon asks for; empty: none."""
    return os.environ.get("STTD_TOKEN", "")


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
