"""What is locked, held against a copy of an advisory database."""

import json
import subprocess
import sys

import pytest
import yaml

from requirements.advisories import is_affected, known

LOCK = """
aiohttp==3.9.1 \\
    --hash=sha256:00
some-thing==2.0 ; python_version < "3.13" \\
    --hash=sha256:00
"""


def record(name="aiohttp", **affected):
    return {
        "id": "PYSEC-1", "modified": "2024-02-06T20:20:18Z", "summary": "Parses\n too much",
        "affected": [{"package": {"ecosystem": "PyPI", "name": name}, **affected}],
    }  # fmt: skip


def span(*events):
    return {"ranges": [{"type": "ECOSYSTEM", "events": [dict([event]) for event in events]}]}


@pytest.mark.parametrize(
    ("affected", "is_found"),
    [
        ({"versions": ["3.9.0", "3.9.1"]}, True),
        ({"versions": ["3.9.0"]}, False),
        (span(("introduced", "0"), ("fixed", "3.9.2")), True),
        (span(("introduced", "0"), ("fixed", "3.9.1")), False),
        (span(("introduced", "3.9.1")), True),
        (span(("introduced", "3.9.2")), False),
        (span(("introduced", "0"), ("last_affected", "3.9.1")), True),
        (span(("introduced", "0"), ("last_affected", "3.9.0")), False),
        (span(("introduced", "0"), ("fixed", "3.0"), ("introduced", "3.9"), ("fixed", "3.10")), True),
        (span(("introduced", "0"), ("fixed", "3.0"), ("introduced", "3.10"), ("fixed", "3.11")), False),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
    ],
)
def test_a_version_is_affected_as_osv_says(affected, is_found):
    assert is_affected("3.9.1", affected) is is_found


def test_only_what_is_pinned_and_not_withdrawn_is_told():
    of_all = span(("introduced", "0"))
    records = [record("AioHTTP", **of_all), record("Some.Thing", **of_all), record("other", **of_all)]
    records.append(record(**of_all) | {"id": "PYSEC-2", "withdrawn": "2024-03-01T00:00:00Z"})
    found, newest = known(LOCK, iter(records))
    assert [(each.package, each.version, each.advisory) for each in found] == [
        ("aiohttp", "3.9.1", "PYSEC-1"), ("some-thing", "2.0", "PYSEC-1"),
    ]  # fmt: skip
    assert found[0].summary == "Parses too much"
    assert newest == "2024-02-06T20:20:18Z"


@pytest.mark.parametrize(
    ("records", "code"), [([], 2), ([record(versions=["0.1"])], 0), ([record(**span(("introduced", "0")))], 1)]
)
def test_the_command_ends_by_what_it_found_in_this_lock(tmp_path, records, code):
    for number, each in enumerate(records):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(each))
        (tmp_path / f"{number}.json").write_text(json.dumps(each))
    command = [sys.executable, "-m", "requirements.advisories", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == code
