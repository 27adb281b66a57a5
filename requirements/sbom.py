"""
What an installation of tenterhook consists of, as CycloneDX 1.6: `make sbom` writes it.

Made from `main.txt`, which pins every package, and from what is vendored for the console. The same lock gives
the same file: it holds no time and nothing drawn at random. Licences are those that installed packages name; hashes of
what is downloaded stand in the lock, to which every download is held.
"""

import json
import re
import sys
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = Path(__file__).parent / "main.txt"
VENDORED: Final = ROOT / "services" / "console" / "static" / "vendor" / "SHA256SUMS"

_PIN: Final = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>[^\\]+))? \\$")
_VIA: Final = re.compile(r"^    #(?: via|  ) (?P<name>[a-z0-9-]+|-r main\.in)$")
_NAMESPACE: Final = uuid.UUID("8f1c3f0e-6f0b-5b43-9a3b-0a5f4c1f7a10")


def bill() -> dict[str, Any]:
    """The bill of materials."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    itself = {
        "type": "application",
        "bom-ref": project["name"],
        "name": project["name"],
        "version": project["version"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    packages, wanted_by = pinned(LOCK.read_text(encoding="utf-8"))
    dependencies: dict[str, list[str]] = {each["bom-ref"]: [] for each in (itself, *packages.values())}
    for name, wanting in wanted_by.items():
        for each in wanting:
            ref = packages[each]["bom-ref"] if each in packages else itself["bom-ref"]
            dependencies[ref].append(packages[name]["bom-ref"])
    made: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": itself},
        "components": [*packages.values(), *_vendored()],
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in dependencies.items()],
    }
    return {**made, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(made, sort_keys=True))}"}


def pinned(lock: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """The components of a lock by name, and for each by whom it is wanted: packages, or the lock's own input."""
    components: dict[str, dict[str, Any]] = {}
    wanted_by: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            name = pin["name"]
            ref = f"pkg:pypi/{name}@{pin['version']}"
            components[name] = {"type": "library", "bom-ref": ref, "name": name, "version": pin["version"], "purl": ref}
            if licences := _licences(name, pin["version"]):
                components[name]["licenses"] = licences
            if pin["marker"]:
                components[name]["properties"] = [{"name": "marker", "value": pin["marker"].strip()}]
            wanted_by[name] = []
        elif via := _VIA.match(line):
            wanted_by[name].append(via["name"])
    return components, wanted_by


def _licences(name: str, version: str) -> list[dict[str, Any]]:
    """As the installed package says itself; none where it is not installed here, or as another version."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    if about["Version"] != version:
        return []
    if expression := about["License-Expression"]:
        return [{"expression": expression}]
    named = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if each.startswith("License ::")]
    text = (about["License"] or "").strip()
    if not named and text and "\n" not in text:
        named = [text]
    return [{"license": {"name": each}} for each in named]


def _vendored() -> list[dict[str, Any]]:
    found = []
    for line in VENDORED.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if name.endswith(".js"):
            hashes = [{"alg": "SHA-256", "content": digest}]
            found.append({"type": "file", "bom-ref": f"vendored:{name}", "name": name, "hashes": hashes})
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=2) + "\n")
