"""Load the settings: defaults < headrace.toml < HEADRACE_* environment < flags.

Every mistake is a ConfigError of one sentence that names the setting, the given value and what is allowed; secrets are
never repeated. Old names of settings are accepted and listed in `Settings.renamed`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from core.errors import ConfigError
from core.settings.catalog import PREFIX, Variable, by_dotted, members, plain, sections, variables
from core.settings.environment import FILE, nearest
from core.settings.environment import given as given_by
from core.settings.models import Settings
from core.settings.renamed import RENAMED, with_new_names

DEFAULT_FILE = Path("headrace.toml")
LOCAL_KEY = "hr-local"


class _Environment(EnvSettingsSource):
    """The HEADRACE_ variables of a given mapping instead of the process' own."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


class _File(TomlConfigSettingsSource):
    """The settings file, with old names replaced; reading it drops a byte order mark, which the parser rejects."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return with_new_names(_toml(Path(file_path)), source=str(file_path))[0]


def load_settings(
    *,
    config: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check the settings; raises ConfigError.

    Args:
        config: the file to read; without it ./headrace.toml, when there is one.
        flags: dotted name → value, strongest of all; None means the flag was not given.
        environ: instead of the process' own. An empty variable counts as not set, as compose files pass them. NAME_FILE
            is the path of a file with the value of NAME.
    """
    path = config if config is not None else DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    found = given_by(os.environ if environ is None else environ)
    renamed = [*found.renamed]
    if path is not None:
        _check_file(path)
        renamed += with_new_names(_toml(path), source=str(path))[1]
    for old in [name for name in given if name in RENAMED]:
        given[RENAMED[old]] = given.pop(old)
        renamed.append((old, RENAMED[old]))

    class Layered(Settings, BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid"
        )

        @classmethod
        def settings_customise_sources(  # type: ignore[override]  # all are passed by name; three are not wanted
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = (_File(settings_cls, path),) if path else ()
            return init_settings, _Environment(settings_cls, found.values), *file

    try:
        layered = Layered(**_nested(given))
    except SettingsError:
        tables = [found.sources[one.name] for one in variables() if one.type == "table" and one.name in found.sources]
        raise ConfigError(f"{' or '.join(tables)} is not valid JSON") from None
    except ValidationError as error:
        raise ConfigError(_sentence(error, path=path, sources=found.sources, flags=given)) from None
    settings = Settings(**{name: getattr(layered, name) for name in Settings.model_fields})
    settings._renamed = tuple(dict.fromkeys(renamed))  # noqa: SLF001 - set by the loader alone
    return settings


def environment(flags: Mapping[str, object]) -> dict[str, str]:
    """Return dotted overrides as HEADRACE_ variables for a child process; secrets are revealed, None is left out."""
    out = {}
    for dotted, value in flags.items():
        setting = _setting(dotted)
        if isinstance(value, list | tuple) and any("," in plain(item) for item in value):
            raise ConfigError(f"{dotted} takes values without commas, because {setting.name} separates them by commas")
        if value is not None:
            out[setting.name] = plain(value)
    return out


def as_toml(settings: Settings) -> str:
    """Write the effective settings as TOML; secrets read "***", what is not set is left out."""
    return tomli_w.dumps(_hidden(settings.model_dump()))


def secrets(settings: BaseModel) -> Iterator[str]:
    """List every secret value, so that logs can leave them out."""
    for _, value in settings:
        if isinstance(value, BaseModel):
            yield from secrets(value)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, SecretStr):
                yield item.get_secret_value()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listening address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def api_keys(settings: Settings) -> list[SecretStr]:
    """Return the API keys of the settings; raises ConfigError if the ingress would be open to other machines."""
    if settings.auth.api_keys or settings.auth.keys_file is not None:
        return settings.auth.api_keys
    if is_loopback(settings.ingress.host):
        return [SecretStr(LOCAL_KEY)]
    raise ConfigError(
        f"ingress.host {settings.ingress.host} can be reached from other machines, so an API key is needed: "
        f"give --api-key, or set {PREFIX}AUTH_API_KEYS or {PREFIX}AUTH_KEYS_FILE"
    )


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def _check_file(path: Path) -> None:
    """Reject a file that is missing or not TOML."""
    try:
        _toml(path)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}") from None


def _setting(dotted: str) -> Variable:
    if dotted not in by_dotted():
        raise ConfigError(f"{dotted} is not a setting{nearest(dotted, by_dotted())}")
    return by_dotted()[dotted]


def _nested(flags: Mapping[str, object]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for dotted, value in flags.items():
        section, _, field = _setting(dotted).dotted.rpartition(".")
        (out.setdefault(section, {}) if section else out)[field] = value
    return out


def _nearest_member(parts: list[str]) -> str:
    """Return the most similar member of a table's entry; otherwise list all members."""
    *entry, wrong = parts
    known = [member.dotted.rpartition(".")[2] for member in members(parts[0])]
    near = get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"; did you mean {'.'.join([*entry, *near])}?" if near else f"; there are {', '.join(known)}"


def _sentence(
    error: ValidationError, *, path: Path | None, sources: Mapping[str, str], flags: Mapping[str, object]
) -> str:
    """Describe the first invalid setting; values from files named by variables are not shown."""
    first = error.errors(include_url=False)[0]
    parts = [str(part) for part in first["loc"]]
    if not parts:  # settings that conflict
        return str(first["ctx"]["error"])
    dotted = ".".join(parts[: 1 if parts[0] not in sections() else 2])
    if first["type"] == "extra_forbidden" and dotted not in by_dotted():
        return f"{dotted} in {path} is not a setting{nearest(dotted, by_dotted())}"
    if dotted not in by_dotted():
        return f"[{dotted}] in {path} must be a table of settings"
    setting = by_dotted()[dotted]
    if setting.type == "table" and len(parts) > 1:
        source = sources.get(setting.name, str(path))
        unknown = first["type"] == "extra_forbidden"
        wrong = f"not a setting{_nearest_member(parts)}" if unknown else f"wrong: {first['msg'].lower()}"
        return f"{'.'.join(parts)} in {source} is {wrong}"
    source = "the command line" if dotted in flags else sources.get(setting.name, str(path))
    by_file = source.removesuffix(FILE) == setting.name != source
    if first["type"] == "value_error" and (setting.secret or not by_file):  # our own message, which contains no secret
        return f"{dotted} from {source} is wrong: {first['ctx']['error']}"
    given = "wrong (not shown)" if setting.secret or by_file else repr(plain(first["input"]))
    return f"{dotted} from {source} is {given}, but must be {setting.allowed}"


def _hidden(value: Any) -> Any:
    match value:
        case SecretStr():
            return "***"
        case dict():
            return {key: _hidden(item) for key, item in value.items() if item is not None}
        case list():
            return [_hidden(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value


__all__ = [
    "LOCAL_KEY",
    "Variable",
    "api_keys",
    "as_toml",
    "environment",
    "is_loopback",
    "load_settings",
    "secrets",
    "variables",
]
