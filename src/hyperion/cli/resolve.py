"""Resolve every setting once: flag > environment > file > default. Unknown keys are errors naming the nearest one."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from hyperion.cli.settings import BY_KEY, SETTINGS, Setting, Value, parse_value
from hyperion.schema.errors import InvalidConfig

DEFAULT = "default"
# Variables of ours that are no settings of `serve`: where commands find the management API, and with what they call.
_OTHERS = frozenset(("HYPERION_ADMIN_URL", "HYPERION_TOKEN", "HYPERION_API_KEY"))
_ALMOST = 0.7
# In URLs: what stands between the user's name and the host, up to the last @, as a password may hold one; a broker's
# token in the place of both; and what a query calls so.
_SECRET = re.compile(
    r"(nats://|://[^/@:,\s]*:)[^,\s]*@|([?&][^=&,\s]*(?:pass|secret|token|key)[^=&,\s]*=)[^&,\s]*", re.I
)


class Resolved(Struct, frozen=True):
    """A setting's value, and where it came from: `--port`, `HYPERION_PORT`, a file, or `default`."""

    setting: Setting
    value: Value
    source: str

    @property
    def shown(self) -> Value:
        """The value as people and logs may see it: of URLs neither passwords nor tokens."""
        if not isinstance(self.value, str):
            return self.value
        return _SECRET.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", self.value)


class Settings(Struct, frozen=True):
    """All settings, by key."""

    entries: dict[str, Resolved]

    def text(self, key: str) -> str:
        """The value of a text setting."""
        return str(self.entries[key].value)

    def integer(self, key: str) -> int:
        """The value of an integer setting."""
        return int(self.entries[key].value)

    def number(self, key: str) -> float:
        """The value of a setting in seconds."""
        return float(self.entries[key].value)

    def flag(self, key: str) -> bool:
        """The value of a flag."""
        return bool(self.entries[key].value)

    def given(self, group: str) -> dict[str, Value]:
        """Those of a group that somebody set, whoever it was."""
        return {
            key: entry.value
            for key, entry in self.entries.items()
            if entry.setting.group == group and entry.source != DEFAULT
        }


def find_files(environ: Mapping[str, str], directory: Path) -> list[Path]:
    """Return the files that are read, the winning one first: `hyperion.toml` here, then the user's own."""
    config_home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    candidates = (directory / "hyperion.toml", Path(config_home) / "hyperion" / "config.toml")
    return [path for path in candidates if path.is_file()]


def resolve(flags: Mapping[str, object], environ: Mapping[str, str], files: Iterable[Path]) -> Settings:
    """Return all settings. `flags` holds those given on the command line, by key. Raises `InvalidConfig`."""
    layers: list[tuple[Mapping[str, object], str]] = [(flags, "--")]
    _check_environment(environ)
    layers.append(({s.key: environ[s.variable] for s in SETTINGS if s.variable in environ}, "HYPERION_"))
    layers += [(read_file(path), str(path)) for path in files]
    return Settings({setting.key: _pick(setting, layers) for setting in SETTINGS})


def read_file(path: Path) -> dict[str, object]:
    """Return the keys of a TOML file. Raises `InvalidConfig` for a key that is no setting."""
    import tomllib

    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidConfig(f"{path}: cannot be read: {error}") from error
    keys = {key.replace("-", "_"): value for key, value in content.items()}
    for key in keys:
        if key not in BY_KEY:
            raise InvalidConfig(f'{path}: unknown key "{key}"{_suggest(key)}')
    return keys


def _pick(setting: Setting, layers: list[tuple[Mapping[str, object], str]]) -> Resolved:
    for values, origin in layers:
        given = values.get(setting.key)
        if given is not None:
            source = {"--": f"--{setting.name}", "HYPERION_": setting.variable}.get(origin, origin)
            return Resolved(setting, parse_value(setting, given, source), source)
    return Resolved(setting, setting.default, DEFAULT)


def _check_environment(environ: Mapping[str, str]) -> None:
    """Other programs may have variables of our prefix, so only what looks like a slip is an error."""
    for variable in environ:
        prefix, _, key = variable.partition("HYPERION_")
        if not prefix and key and key.lower() not in BY_KEY and variable not in _OTHERS:
            nearest = _nearest(key.lower(), sorted(BY_KEY), _ALMOST)
            if nearest:
                raise InvalidConfig(
                    f"environment: unknown variable {variable}; did you mean {BY_KEY[nearest].variable}?"
                )


def _suggest(key: str) -> str:
    nearest = _nearest(key, sorted(BY_KEY), 0.0)
    return f'; did you mean "{nearest}"?' if nearest else ""


def _nearest(word: str, known: list[str], cutoff: float) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=cutoff)), "")
