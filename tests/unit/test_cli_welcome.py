"""What `tenterhook up` shows and writes when all is ready."""

import json
import shlex
from pathlib import Path

from services.cli.welcome import Ready

READY = Ready(
    ingest="http://127.0.0.1:8080",
    admin="http://127.0.0.1:8081",
    dispatcher="http://127.0.0.1:8090",
    app="demo",
    public_key="pk_1",
    secret_key="sk_1",
    token="tok_1",
    broker="127.0.0.1:9092",
    broker_kind="kafka",
    pid=1,
    pids={"ingest": 2},
)


def test_the_document_has_what_the_contract_names():
    document = json.loads(json.dumps(READY.document()))

    assert {name: document[name] for name in ("ingest", "admin", "app", "publicKey", "secretKey", "token")} == {
        "ingest": "http://127.0.0.1:8080",
        "admin": "http://127.0.0.1:8081",
        "app": "demo",
        "publicKey": "pk_1",
        "secretKey": "sk_1",
        "token": "tok_1",
    }


def test_the_curl_line_is_one_line_that_a_shell_reads_as_meant():
    words = shlex.split(READY.curl())

    assert "\n" not in READY.curl()
    assert words[:3] == ["curl", "-i", "http://127.0.0.1:8080/v1/apps/demo/events"]
    assert "Authorization: Bearer sk_1" in words
    assert json.loads(words[words.index("-d") + 1])["type"] == "call_ended"


def test_the_text_holds_the_curl_line_and_commands_that_work_where_it_is_read():
    text = READY.text(".venv/bin/tenterhook", Path(".tenterhook/ready.json"), is_found=True)

    assert READY.curl() in text.splitlines()
    assert ".venv/bin/tenterhook sink" in text.splitlines()
    assert "tok_1" not in text


def test_commands_that_would_not_find_the_ready_file_are_told_all():
    text = READY.text("tenterhook", Path("/srv/x/ready.json"), is_found=False)

    assert "--admin http://127.0.0.1:8081 --app demo --token tok_1" in text


def test_keys_do_not_show_where_objects_are_printed():
    assert not {"pk_1", "sk_1", "tok_1"} & set(repr(READY).replace("'", " ").split())
    assert "sk_1" not in repr(READY)
