"""docs/deploying.md: what services may at the broker, and the secrets and paths that it names."""

import re
from pathlib import Path

import yaml

from services.cli.main import COMMANDS
from streams.grants import GRANTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
BASE = ROOT / "deploy" / "kubernetes" / "base"


def row(service):
    """The service's row of the table, as it has to be."""
    cells = {("Read",): [], ("Write",): [], ("Read", "Write"): []}
    more = {}
    for grant in GRANTS[service]:
        if grant.name in {"installation", "schemas"}:
            continue
        if grant.is_prefix and grant.operations == ("Describe", "DescribeConfigs"):
            continue
        name = f"`{grant.name}`" if grant.name else "…"
        if grant.kind == "topic" and grant.operations in cells:
            cells[grant.operations].append(name)
        else:
            kind = {"topic": "", "group": "group ", "transactional_id": "transactional id "}[grant.kind]
            more.setdefault(f"{', '.join(grant.operations)}: {kind}", []).append(name)
    cells["more"] = [may + ", ".join(names) for may, names in more.items()]
    return f"| `tenterhook-{service}` | {' | '.join(', '.join(each) for each in cells.values())} |"


def test_what_each_service_may_is_said():
    missing = [row(service) for service in GRANTS if row(service) not in PAGE]

    assert missing == [], "docs/deploying.md should have these rows"


def test_every_path_and_command_is_there():
    paths = set(re.findall(r"(?:deploy|requirements|streams|tests)/[\w./-]+\w", PAGE))
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    # Not the namespace of that name.
    commands = set(re.findall(r"(?<!-n )(?<!namespace )\btenterhook ([a-z]+)\b", blocks))

    assert {path for path in paths if not (ROOT / path).exists() and path != "deploy/compose/kek"} == set()
    assert commands
    assert commands <= {name for name, *_ in COMMANDS}


def test_every_secret_that_the_manifests_want_is_made():
    wanted = set()
    for file in BASE.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            wanted |= set(re.findall(r"'secretName': '([\w.-]+)'", str(document)))

    assert wanted == set(re.findall(r"create secret generic ([\w.-]+) ", PAGE))
