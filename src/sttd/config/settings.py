"""Dataclass fields with a help text and limits, and their values. The settings themselves are in `config.py`."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from sttd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")


def setting(
    default: Any,
    help_text: str,
    *,
    choices: tuple[object, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Return a field of a settings class. A number must lie between `low` and `high`, both included."""
    return field(default=default, metadata={"help": help_text, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `key` is `section.name`; `kind` is its type."""

    key: str
    kind: type
    default: object
    help: str
    choices: tuple[object, ...]
    low: float | None
    high: float | None

    def allowed(self) -> str:
        """Return a phrase that describes the allowed values."""
        if self.choices:
            return "one of " + ", ".join(str(choice) or '""' for choice in self.choices)
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            name = "a whole number" if self.kind is int else "a number"
            return f"{name} from {self.low:g} to {self.high:g}"
        return "a list of texts" if self.kind is tuple else "a text"

    def convert(self, value: object) -> object:
        """Convert `value`, typed or as text, to this setting's type. Raises ValueError if the value is not allowed."""
        result = _parse_text(value, self.kind) if isinstance(value, str) else _check_typed(value, self.kind)
        if self.choices and result not in self.choices:
            raise ValueError(value)
        if isinstance(result, (int, float)) and not isinstance(result, bool):
            if self.low is not None and result < self.low:
                raise ValueError(value)
            if self.high is not None and not result <= self.high:
                raise ValueError(value)
        return result


def _parse_text(text: str, kind: type) -> object:
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off"):
            return False
        raise ValueError(text)
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is str:
        return text
    return kind(text.strip())


def _check_typed(value: object, kind: type) -> object:
    if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is bool and value in (0, 1):  # vosk's clients, and others, write 1 for true
        return bool(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is kind:
        return value
    raise ValueError(value)


@cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """Return the settings of a settings class by key, in the order of their definition."""
    return types.MappingProxyType({found.key: found for found in _settings(cls, "")})


def _settings(cls: type, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        if dataclasses.is_dataclass(kind):
            yield from _settings(typing.cast("type", kind), f"{item.name}.")
        else:
            meta = item.metadata
            base = typing.get_origin(kind) or kind
            yield Setting(
                prefix + item.name,
                base,
                item.default,
                meta["help"],
                meta["choices"],
                meta["low"],
                meta["high"],
            )


def value_of(config: object, key: str) -> object:
    """Return the value of the setting `key` in a configuration."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def unknown_key(key: str, known: Mapping[str, Setting]) -> str:
    """Return an error message about a key that is not in `known`."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown setting {key!r}{hint}; known: {', '.join(known)}"


def build(cls: type[T], values: Mapping[str, object], prefix: str = "") -> T:
    """Return an instance of a settings class. `values` has a value for every key below `prefix`."""
    hints = typing.get_type_hints(cls)
    arguments: dict[str, object] = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        kind = hints[item.name]
        if dataclasses.is_dataclass(kind):
            arguments[item.name] = build(typing.cast("type", kind), values, f"{item.name}.")
        else:
            arguments[item.name] = values[prefix + item.name]
    return cls(**arguments)


def read_toml(path: Path) -> Iterator[tuple[str, object, str]]:
    """Yield (key, value, origin) for each setting in a file. Raises ConfigError if the file cannot be read."""
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    for name, value in table.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{name}.{key}", inner, str(path)
        else:
            yield name, value, str(path)
