"""`tenterhook settings`: every setting, its value, and where it comes from."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from pydantic import BaseModel, SecretStr
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource
from rich.table import Table
from rich.text import Text

from services.cli.errors import Failed
from services.cli.tables import print_table
from services.runtime.process import load_settings
from services.runtime.serving import StartupError
from services.runtime.settings import Settings

Source = Literal["default", "env", "file"]

MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting as it is printed."""

    #: As in the TOML file: `ingest.port`.
    name: str
    #: As in the environment: `TENTERHOOK_INGEST__PORT`.
    variable: str
    value: str | int | float | bool | None
    source: Source
    description: str


def settings(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """
    Print all settings with their value and source.

    The source is default, env or file. Secrets are masked.

    Args:
        as_json: Print them as JSON.
    """
    try:
        shown = list(all_settings(load_settings()))
    except StartupError as error:
        raise Failed(str(error)) from None
    if as_json:
        print(json.dumps([asdict(each) for each in shown]))
        return
    table = Table("setting", "value", "source", "variable")
    for each in shown:
        style = "" if each.source == "default" else "bold"
        value = "" if each.value is None else str(each.value)
        table.add_row(Text(each.name), Text(value), each.source, each.variable, style=style)
    print_table(table)


def all_settings(loaded: Settings) -> Iterator[Shown]:
    """Every setting of these settings, in the order of their definition."""
    given: dict[Source, dict[str, Any]] = {
        "env": EnvSettingsSource(Settings)(),
        "file": TomlConfigSettingsSource(Settings)(),
    }
    yield from _of(loaded, (), given)


def _of(section: BaseModel, path: tuple[str, ...], given: dict[Source, dict[str, Any]]) -> Iterator[Shown]:
    for name, field in type(section).model_fields.items():
        value, here = getattr(section, name), (*path, name)
        if isinstance(value, BaseModel):
            yield from _of(value, here, given)
            continue
        yield Shown(
            name=".".join(here),
            variable="TENTERHOOK_" + "__".join(here).upper(),
            value=_printable(value),
            source=next((source for source, values in given.items() if _has(values, here)), "default"),
            description=field.description or "",
        )


def _printable(value: Any) -> str | int | float | bool | None:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _has(values: Any, path: tuple[str, ...]) -> bool:
    """Whether a source gives the setting at this path."""
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True
