"""Where a command finds the services, and whose keys it uses."""

import json

import pytest

from services.cli.access import (
    Access,
    AdminOptions,
    InstallationOptions,
    admin_access,
    ingest_access,
    installation_access,
)
from services.cli.errors import Failed, WrongUsage

READY = {
    "ingest": "http://127.0.0.1:8080",
    "admin": "http://127.0.0.1:8081",
    "app": "demo",
    "publicKey": "pk_1",
    "secretKey": "sk_1",
    "token": "tok_1",
}


@pytest.fixture
def ready(tmp_path):
    file = tmp_path / "ready.json"
    file.write_text(json.dumps(READY))
    return file


def test_a_running_up_is_enough(ready):
    assert admin_access(AdminOptions(), ready) == Access("http://127.0.0.1:8081", "demo", "tok_1")
    assert ingest_access(None, None, None, ready) == Access("http://127.0.0.1:8080", "demo", "sk_1")


def test_what_is_given_goes_first(ready):
    options = AdminOptions(app="shop", admin="https://admin.example/", token="tok_2")

    assert admin_access(options, ready) == Access("https://admin.example", "shop", "tok_2")
    assert ingest_access("shop", "https://in.example", "sk_2", ready) == Access("https://in.example", "shop", "sk_2")


def test_what_is_of_no_one_app_needs_none(ready, tmp_path):
    options = InstallationOptions(admin="https://admin.example", token="tok_2")

    assert installation_access(InstallationOptions(), ready) == Access("http://127.0.0.1:8081", "*", "tok_1")
    assert installation_access(options, tmp_path / "ready.json") == Access("https://admin.example", "*", "tok_2")
    with pytest.raises(WrongUsage, match="give --token"):
        installation_access(InstallationOptions(admin="https://admin.example"), ready)


def test_the_keys_of_up_are_never_sent_to_another_address(ready):
    with pytest.raises(WrongUsage, match="give --token"):
        admin_access(AdminOptions(admin="https://admin.example"), ready)
    with pytest.raises(WrongUsage, match="give --key"):
        ingest_access(None, "https://in.example", None, ready)


def test_the_key_of_one_app_is_not_tried_on_another(ready):
    with pytest.raises(WrongUsage, match="no key of the app shop"):
        ingest_access("shop", None, None, ready)


def test_without_up_the_default_addresses_are_asked(tmp_path):
    nowhere = tmp_path / "ready.json"

    assert admin_access(AdminOptions(app="demo", token="t"), nowhere).url == "http://127.0.0.1:8081"
    assert ingest_access("demo", None, "sk", nowhere).url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (AdminOptions(token="t"), "no app: give --app, set TENTERHOOK_APP, or call this in the folder"),
        (AdminOptions(app="demo"), "no token of the admin API: give --token, set TENTERHOOK_TOKEN"),
        (AdminOptions(app="demo", token="t", admin="localhost:8081"), "--admin must start with http"),
    ],
)
def test_what_is_missing_is_named_with_the_ways_to_give_it(tmp_path, options, said):
    with pytest.raises(WrongUsage, match=said):
        admin_access(options, tmp_path / "ready.json")


def test_a_broken_ready_file_is_named(tmp_path):
    file = tmp_path / "ready.json"
    file.write_text("{")
    with pytest.raises(Failed, match="start `tenterhook up` again, or remove it"):
        admin_access(AdminOptions(), file)


def test_no_representation_shows_a_key(ready):
    assert "tok_1" not in repr(admin_access(AdminOptions(token="tok_1"), ready)) + repr(AdminOptions(token="tok_1"))


def test_a_token_and_a_key_may_stand_in_files(ready, tmp_path, monkeypatch):
    for name in ("TOKEN", "KEY"):
        (tmp_path / name).write_text(f"{name.lower()}_in_file\n")
        monkeypatch.setenv(f"TENTERHOOK_{name}_FILE", str(tmp_path / name))

    assert admin_access(AdminOptions(), ready).credential == "token_in_file"
    assert admin_access(AdminOptions(token="tok_2"), ready).credential == "tok_2"
    assert ingest_access(None, None, None, ready).credential == "key_in_file"

    (tmp_path / "TOKEN").write_text("\n")
    with pytest.raises(Failed, match=r"TENTERHOOK_TOKEN_FILE\) is empty"):
        admin_access(AdminOptions(), ready)
    (tmp_path / "KEY").unlink()
    with pytest.raises(Failed, match=r"TENTERHOOK_KEY_FILE\) cannot be read"):
        ingest_access(None, None, None, ready)
