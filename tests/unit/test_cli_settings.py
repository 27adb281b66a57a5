"""`tenterhook settings`: value and source of every setting."""

import json

import pytest

from services.cli.errors import Failed
from services.cli.settings import all_settings, settings
from services.runtime.settings import Settings


@pytest.fixture
def shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read():
        return {each.name: each for each in all_settings(Settings())}

    return read


def test_every_setting_is_there_once_with_its_variable(shown):
    names = set(shown())

    assert {"broker", "kek", "ingest.port", "dispatcher.worker_id", "partitions.by_app"} <= names
    assert shown()["partitions.by_app"].variable == "TENTERHOOK_PARTITIONS__BY_APP"
    assert all(each.description for each in shown().values())


def test_the_source_is_default_file_or_env_and_env_goes_first(shown, tmp_path, monkeypatch):
    (tmp_path / "tenterhook.toml").write_text(
        'broker = "file:1"\nlog_level = "debug"\n[ingest]\nport = 1\nhost = "::1"\n'
    )
    monkeypatch.setenv("TENTERHOOK_BROKER", "env:2")
    monkeypatch.setenv("TENTERHOOK_INGEST__PORT", "2")
    got = shown()

    assert [(each.value, each.source) for each in (got["broker"], got["log_level"], got["ingest.port"])] == [
        ("env:2", "env"),
        ("debug", "file"),
        (2, "env"),
    ]
    assert (got["ingest.host"].value, got["ingest.host"].source) == ("::1", "file")
    assert (got["admin.port"].value, got["admin.port"].source) == (8081, "default")


def test_secrets_are_masked(shown, monkeypatch):
    monkeypatch.setenv("TENTERHOOK_KEK", "c2VjcmV0")
    got = shown()["kek"]

    assert (got.value, got.source) == ("***", "env")
    assert "c2VjcmV0" not in repr(list(shown().values()))


def test_people_and_programs_are_told_the_same(shown, monkeypatch, capsys):
    monkeypatch.setenv("TENTERHOOK_KEK", "c2VjcmV0")
    settings(as_json=True)
    told = {each["name"]: (each["value"], each["source"]) for each in json.loads(capsys.readouterr().out)}
    settings()
    table = capsys.readouterr().out

    assert told == {each.name: (each.value, each.source) for each in shown().values()}
    assert "TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES" in table
    assert "c2VjcmV0" not in table


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(monkeypatch):
    monkeypatch.setenv("TENTERHOOK_INGEST__PORT", "hunter2")
    with pytest.raises(Failed, match=r"ingest\.port") as caught:
        settings()
    assert "hunter2" not in str(caught.value)
