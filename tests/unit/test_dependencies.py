"""What is installed: pinned, hashed, under licences that we may pass on, and told whole."""

import re

import pytest
from packaging.requirements import Requirement

from requirements.sbom import LOCK, VENDORED, bill

LOCKS = sorted(LOCK.parent.glob("*.txt"))

#: Words that licences of what we install may consist of: those that let it be passed on unchanged beside our own.
ALLOWED = re.compile(
    r"apache|mit|bsd|psf|python software foundation|mozilla public license 2\.0|isc|repoze public|0bsd", re.IGNORECASE
)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_with_hashes_and_says_no_address(lock):
    text = lock.read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())

    assert "://" not in text
    for entry in entries:
        wanted = Requirement(entry.partition(" \\")[0])
        assert [each.operator for each in wanted.specifier] == ["=="], entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_the_bill_names_what_is_locked_and_vendored_and_nothing_else():
    locked = {
        f"{wanted.name}@{str(wanted.specifier)[2:]}"
        for line in LOCK.read_text(encoding="utf-8").splitlines()
        if line[:1].isalpha() and (wanted := Requirement(line.partition(" \\")[0]))
    }
    vendored = {path.name for path in VENDORED.parent.glob("*.js")}
    told = bill()

    refs = [each["bom-ref"] for each in told["components"]]
    assert {ref.removeprefix("pkg:pypi/").removeprefix("vendored:") for ref in refs} == locked | vendored
    assert len(refs) == len(set(refs))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", told["serialNumber"])
    assert told == bill()


def test_the_bill_tells_who_needs_what():
    told = {each["ref"].partition("@")[0]: each["dependsOn"] for each in bill()["dependencies"]}
    direct = (LOCK.parent / "main.in").read_text(encoding="utf-8").split()

    assert len(told["tenterhook"]) == len(direct)
    assert [each.partition("@")[0] for each in told["pkg:pypi/jinja2"]] == ["pkg:pypi/markupsafe"]
    needed = {each for on in told.values() for each in on}
    assert {each["bom-ref"] for each in bill()["components"] if each["type"] == "library"} == needed


def test_licences_let_it_be_passed_on():
    unnamed = set()
    for each in bill()["components"]:
        texts = [item.get("expression") or item["license"]["name"] for item in each.get("licenses", [])]
        if not texts:
            unnamed.add(each["name"])
        assert all(ALLOWED.search(part) for text in texts for part in re.split(r" (?:AND|OR) ", text)), each

    # Not installed here; and files, whose licences lie beside them.
    assert unnamed <= {"colorama", "uvloop", "htmx.min.js", "htmx-ext-sse.min.js"}
    assert {path.stem for path in VENDORED.parent.glob("*.LICENSE")} == {"htmx", "htmx-ext-sse"}
