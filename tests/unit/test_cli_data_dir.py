"""The folder that `tenterhook up` keeps its state in."""

import base64
import json
import stat

import pytest

from services.cli.data_dir import held, write_private
from services.cli.errors import Failed

KEYS = {"app": "demo", "public_key": "pk_1", "secret_key": "sk_1", "token": "tok_1"}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_made_for_this_user_alone(tmp_path):
    with held(tmp_path / "a" / "data") as folder:
        assert mode(folder.path) == 0o700


def test_one_process_has_it_at_a_time(tmp_path):
    with (
        held(tmp_path),
        pytest.raises(Failed, match=r"another `tenterhook up` \(process \d+\) has .*: stop it"),
        held(tmp_path),
    ):
        pass

    with held(tmp_path):
        pass  # it was given back


def test_a_folder_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(Failed, match=r"--data .*: Not a directory"), held(tmp_path / "file" / "data"):
        pass


def test_the_kek_is_made_once(tmp_path):
    said = []
    with held(tmp_path) as folder:
        path = folder.kek_file(said.append)
        first = path.read_bytes()
        again = folder.kek_file(said.append).read_bytes()

    assert len(base64.b64decode(first, validate=False)) == 32
    assert first == again
    assert mode(path) == 0o600
    assert len(said) == 1


def test_keys_are_kept_for_this_user_alone(tmp_path):
    with held(tmp_path) as folder:
        before = folder.keys()
        folder.keep_keys(KEYS)

    with held(tmp_path) as folder:
        assert (before, folder.keys()) == (None, KEYS)
        assert {mode(file) for file in tmp_path.glob("*.json")} == {0o600}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"app": "demo"}', b"\xff"])
def test_keys_that_cannot_be_read_are_not_replaced_silently(tmp_path, content):
    (tmp_path / "keys.json").write_bytes(content)

    with held(tmp_path) as folder, pytest.raises(Failed, match=r"keys\.json cannot be read .*remove it"):
        folder.keys()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "ready.json"
    target.write_text("old")

    with pytest.raises(TypeError):
        write_private(target, {"a": object()})

    assert target.read_text() == "old"
    write_private(target, {"a": 1})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["ready.json"]


def test_a_file_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(Failed, match=r"cannot be written: No such file or directory"):
        write_private(tmp_path / "missing" / "ready.json", {})
