"""
Known vulnerabilities of what is locked, by a copy of an advisory database: `make audit-copy ADVISORIES=DIR`.

For machines that cannot ask PyPI (`make audit`). DIR is a checkout of a database of OSV records as YAML or JSON, such
as PyPA's advisory-database. It knows what the copy knows: its newest record's date is printed with the result.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK: Final = Path(__file__).parent / "main.txt"

_PIN: Final = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)


class Known(NamedTuple):
    """A vulnerability of a pinned package."""

    package: str
    version: str
    advisory: str
    summary: str


def known(lock: str, records: Iterator[dict[str, Any]]) -> tuple[list[Known], str]:
    """What the records say of what the lock pins, and the newest time that one was modified, '' without any."""
    pins = {canonicalize_name(pin["name"]): pin["version"].strip() for pin in _PIN.finditer(lock)}
    found, newest = [], ""
    for record in records:
        newest = max(newest, str(record.get("modified", "")))
        if record.get("withdrawn"):
            continue
        for affected in record.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") == "PyPI" and name in pins and is_affected(pins[name], affected):
                text = record.get("summary") or record.get("details", "")
                found.append(Known(name, pins[name], str(record["id"]), " ".join(str(text).split())[:120]))
    return sorted(set(found)), newest


def is_affected(version: str, affected: dict[str, Any]) -> bool:
    """Whether a package's entry of an OSV record names this version, in its list or in a range."""
    if version in map(str, affected.get("versions", ())):
        return True
    return any(_is_within(Version(version), each) for each in affected.get("ranges", ()) if each["type"] == "ECOSYSTEM")


def _is_within(version: Version, span: dict[str, Any]) -> bool:
    """By the last event that is not after the version. Source: OSV schema, evaluation of ranges."""
    is_in = False
    events = [(_version(str(at)), kind) for event in span["events"] for kind, at in event.items()]
    for at, kind in sorted(events, key=lambda event: event[0]):
        if kind == "introduced" and version >= at:
            is_in = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            is_in = False
    return is_in


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")  # a wrong event makes a range larger, never smaller


def records_of(folder: Path) -> Iterator[dict[str, Any]]:
    """All OSV records below a folder."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".yaml", ".yml", ".json"}:
            text = path.read_text(encoding="utf-8")
            record = json.loads(text) if path.suffix == ".json" else yaml.load(text, loader)  # noqa: S506  # both are safe
            if isinstance(record, dict) and "affected" in record:
                yield record


def main(folder: Path) -> int:
    """Say what is known; 1 where something is, 2 where the folder holds no advisory."""
    found, newest = known(LOCK.read_text(encoding="utf-8"), records_of(folder))
    if not newest:
        sys.stderr.write(f"{folder} holds no OSV records. Name a checkout of an advisory database.\n")
        return 2
    for each in found:
        sys.stdout.write(f"{each.package} {each.version}: {each.advisory}: {each.summary}\n")
    sys.stdout.write(
        f"{len(found)} known vulnerabilities of what {LOCK.name} pins, by advisories up to {newest[:10]}\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004
        sys.exit("make audit-copy ADVISORIES=DIR: name the folder of an advisory database")
    sys.exit(main(Path(sys.argv[1])))
