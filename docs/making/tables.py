"""
Writes the tables in docs/*.md that the code fills: settings, metrics, topics, errors, commands.

    python -m docs.making.tables          # `make tables`

Each stands between two comments, and what is around them is written by hand. Pure but for `main`;
`tests/docs/test_tables_made.py` holds the pages to it.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from docs.making.commands import all_of, arguments, options_table, shared_table
from services.cli.main import commands
from services.cli.settings import Shown, all_settings
from services.runtime import kinds, metrics
from services.runtime.metric import Label
from services.runtime.settings import Settings
from services.runtime.starting import BrokerDenied
from streams.asyncapi import KEYS, retention
from streams.connection import BrokerAway, BrokerRefused, BrokerUntrusted
from streams.quarantine import CODES
from streams.security import SecurityUnusable
from streams.topics import TOPICS, Partitions, TopicMismatch, partition_count

DOCS: Final = Path(__file__).parents[1]

#: Defaults that differ from machine to machine.
_WORDED: Final = dict.fromkeys(("dispatcher.worker_id", "breaker.worker_id"), "host name and process id")

#: Partition counts that are settings.
_PARTITIONS: Final = {"app": "`partitions.by_app`", "integration": "`partitions.by_integration`"}


def with_tables(page: str, tables: Mapping[str, Iterable[str]]) -> str:
    """
    The page with these tables in their places.

    Raises:
        ValueError: it has no place for one of them, or several.
    """
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: made by make tables -->\n", f"<!-- end of {name} -->\n"
        before, *behind = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", page, flags=re.DOTALL)
        if len(behind) != 1:
            raise ValueError(f"no place for a table: add `{begin.strip()}` and `{end.strip()}` to the page, once")
        page = "".join((before, begin, "\n", *(f"{line}\n" for line in lines), "\n", end, behind[0]))
    return page


def settings_table(settings: Iterable[Shown]) -> Iterator[str]:
    """*settings*: with their defaults."""
    yield "| setting | variable | default | what it is |"
    yield "|---|---|---|---|"
    for each in settings:
        default = _WORDED.get(each.name) or ("none" if each.value is None else f"`{_written(each.value)}`")
        yield f"| `{each.name}` | `{each.variable}` | {default} | {each.description} |"


def metrics_table() -> Iterator[str]:
    """Every metric that a service has."""
    yield "| metric | kind | unit | labels | shown by | meaning |"
    yield "|---|---|---|---|---|---|"
    for each in metrics.DECLARED:
        labels = ", ".join(f"`{label.name}`" for label in each.labels) or "none"
        whose = "all" if each.services == metrics.ALL else ", ".join(each.services)
        yield f"| `{each.name}` | {each.kind} | {each.unit} | {labels} | {whose} | {each.meaning} |"


def labels_table() -> Iterator[str]:
    """Every label that one of them has."""
    yield "| label | values | meaning | of |"
    yield "|---|---|---|---|"
    for label in (each for each in vars(metrics).values() if isinstance(each, Label)):
        values = ", ".join(f"`{value}`" for value in label.values) or f"at most {label.at_most} at a time"
        where = ", ".join(f"`{metric.name}`" for metric in metrics.DECLARED if label in metric.labels)
        yield f"| `{label.name}` | {values} | {label.meaning} | {where} |"


def topics_table() -> Iterator[str]:
    """Every topic; those that are internal behind the others."""
    yield "| topic | key | what it holds | values | cleanup | kept | partitions |"
    yield "|---|---|---|---|---|---|---|"
    for topic in sorted(TOPICS, key=lambda topic: topic.is_internal):
        what = topic.what + (f"; a tombstone {topic.tombstone}" if topic.tombstone else "")
        internal = ". Internal" if topic.is_internal else ""
        values = ", ".join(f"`{name}`" for name in topic.values)
        partitions = _PARTITIONS.get(topic.partitioned_by) or partition_count(topic, Partitions())
        yield (
            f"| `{topic.name}` | {topic.key} | {what}{internal} | {values} | {topic.cleanup} | {retention(topic)} "
            f"| {partitions} |"
        )


def keys_table() -> Iterator[str]:
    """Every kind of key that one of them has."""
    yield "| key | what it is |"
    yield "|---|---|"
    for key, meaning in KEYS.items():
        yield f"| {key} | {meaning} |"


def headers_table() -> Iterator[str]:
    """Every header that their records have."""
    yield "| header | meaning | on |"
    yield "|---|---|---|"
    for header, meaning in dict.fromkeys(header for topic in TOPICS for header in topic.headers):
        where = ", ".join(f"`{topic.name}`" for topic in TOPICS if (header, meaning) in topic.headers)
        yield f"| `{header}` | {meaning} | {where} |"


def problems_table(of: kinds.Of) -> Iterator[str]:
    """Every kind of problem that those answer with."""
    yield "| code | status | when | what to do |"
    yield "|---|---|---|---|"
    for kind in (kind for kind in kinds.DECLARED if kind.of == of):
        status = "4xx" if kind.is_any_4xx else kind.status
        yield f"| `{kind.code}` | {status} | {kind.when} | {kind.remedy} |"


def quarantine_table() -> Iterator[str]:
    """Why records are put aside."""
    yield "| code | why | what to do |"
    yield "|---|---|---|"
    for code, (why, remedy) in CODES.items():
        yield f"| `{code}` | {why} | {remedy} |"


def _codes_table(*errors: type[BrokerAway | BrokerDenied | SecurityUnusable | TopicMismatch]) -> Iterator[str]:
    """What keeps a service from starting."""
    yield "| code | when | what to do |"
    yield "|---|---|---|"
    for error in errors:
        yield f"| `{error.code}` | {error.when} | {error.remedy} |"


def pages(settings: Iterable[Shown]) -> dict[str, dict[str, Iterable[str]]]:
    """The tables of each page in docs/, by its file; *settings* with their defaults."""
    every = {name: of for name, of in all_of(commands()).items() if arguments(of)}
    return {
        "settings.md": {
            "settings": settings_table(settings),
            "waits": _codes_table(BrokerRefused, BrokerUntrusted, BrokerAway),
        },
        "metrics.md": {"labels": labels_table(), "metrics": metrics_table()},
        "topics.md": {"topics": topics_table(), "keys": keys_table(), "headers": headers_table()},
        "commands.md": {
            "shared options": shared_table(every.values()),
            **{f"options of {name}": options_table(of) for name, of in every.items()},
        },
        "errors.md": {
            "every service": problems_table("every service"),
            "ingest": problems_table("ingest"),
            "admin": problems_table("admin"),
            "quarantine": quarantine_table(),
            "start": _codes_table(TopicMismatch, BrokerDenied, SecurityUnusable),
        },
    }


def main() -> None:
    """Write the pages anew. Settings of whoever runs this are not the defaults."""
    for name in [name for name in os.environ if name.startswith("TENTERHOOK_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        defaults = list(all_settings(Settings()))
        os.chdir(DOCS)
    for name, tables in pages(defaults).items():
        page = DOCS / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


def _written(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


if __name__ == "__main__":
    main()
