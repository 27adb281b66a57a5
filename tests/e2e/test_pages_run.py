"""
The commands of the documentation, pasted into a shell block after block: docs/tutorial.md and docs/your-kafka.md as a
newcomer reads them, each in a folder of its own; every other page beside a running `tenterhook up`.

What is typed in place of what a page says is below: ports that are free, ids that are there. Which blocks are not
pasted, and why, is in `docs/test_blocks.py`.
"""

import asyncio
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.ports import free_ports
from tests.brokers import lacking
from tests.docs.test_blocks import NOT_PASTED, reason_of
from tests.pasted import BIN, Terminal, blocks, pages

pytestmark = pytest.mark.timeout(300)

#: Read from their beginning to their end by tests of their own.
READ = ("docs/tutorial.md", "docs/your-kafka.md")
#: What the tests' own set-up has done: they are run in its environment.
INSTALLED = {"make setup\n": "", "export PATH=$PWD/.venv/bin:$PATH\n": "", ".venv/bin/tenterhook": "tenterhook"}

OTHERS = sorted({block.page for block in blocks() if block.page not in READ and reason_of(block) is None})
#: More of each page, for blocks that need a program which a machine may lack.
NEEDS = {"docs/topics.md": "kcat"}


class Page:
    """The blocks of a page one after another, none left out."""

    def __init__(self, name: str) -> None:
        self._left = [block for block in blocks() if block.page == name]

    def next(self, start: str) -> str:
        """The next block, which begins so."""
        block = self._left.pop(0)
        assert block.text.startswith(start), f"{block}: expected a block that begins with {start}"
        return block.text

    def is_read(self) -> bool:
        return not self._left


def test_the_tutorial(tmp_path):
    [port] = free_ports(1)
    replaced = INSTALLED | {
        "tenterhook up": "tenterhook up --ingest-port 0 --admin-port 0",
        "tenterhook sink": f"tenterhook sink --port {port}",
        "http://127.0.0.1:9000": f"http://127.0.0.1:{port}",
    }
    page = Page("docs/tutorial.md")
    one, two, three = (Terminal(tmp_path, name, replaced=replaced) for name in ("one", "two", "three"))
    with closing(one), closing(two), closing(three):
        three.paste(page.next("make setup"))
        up = one.leave_running(page.next("tenterhook up"))
        one.wait_for(r"\ncurl -i ", 90, up)
        three.paste(page.next("tenterhook integrations create"))
        receiver = page.next("TENTERHOOK_SIGNING_SECRET_FILE=signing-secret tenterhook sink\n")
        sink = two.leave_running(receiver)
        two.wait_for(f":{port}", running=sink)

        three.paste(page.next("tenterhook send call_ended"))
        two.wait_for(r"#1 call_ended  int_\w+:1  sha256 ✓ webhook ✓ +→ 200")
        assert "delivered" in three.paste(page.next("tenterhook trace call_1-ended"))
        assert "a repeat" in three.paste(page.next("tenterhook send call_ended"))

        assert two.interrupt(sink) == 0
        assert two.wait_for(r"(\d+) arrived") == "1"
        sink = two.leave_running(page.next("TENTERHOOK_SIGNING_SECRET_FILE=signing-secret tenterhook sink --flap 1"))
        two.wait_for(rf"(?s)(:{port}.*){{2}}", running=sink)
        three.paste(page.next("tenterhook send call_ended"))
        two.wait_for(r"#1 call_ended  int_\w+:1  sha256 ✓ webhook ✓ +→ 503")
        two.wait_for(r"#2 call_ended  int_\w+:2  sha256 ✓ webhook ✓ +→ 200")
        looked = three.paste(page.next("sleep 8"))
        assert looked.index("503") < looked.index("attempt 2") < looked.index("call_ended", looked.index("attempt 2"))

        assert two.interrupt(sink) == 0
        sink = two.leave_running(receiver)
        two.wait_for(rf"(?s)(:{port}.*){{3}}", running=sink)
        assert "paused" in three.paste(page.next("tenterhook integrations pause")).lower()
        assert "call_started" not in two.said
        three.paste(page.next("tenterhook integrations activate"))
        two.wait_for(r"#1 call_started  int_\w+:1  sha256 ✓ webhook ✓ +→ 200")
        three.paste(page.next("tenterhook reconcile"))
        assert page.is_read()
        assert one.interrupt(up) == 0


def test_your_own_kafka(tmp_path):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    cluster = KafkaBroker(tmp_path / "cluster")
    folder = tmp_path / "newcomer"
    folder.mkdir()
    ingest, admin, dispatcher, breaker, port = free_ports(5)
    environment = {
        "TENTERHOOK_INGEST__PORT": ingest,
        "TENTERHOOK_ADMIN__PORT": admin,
        "TENTERHOOK_DISPATCHER__PORT": dispatcher,
        "TENTERHOOK_BREAKER__PORT": breaker,
        "TENTERHOOK_INGEST_URL": f"http://127.0.0.1:{ingest}",
        "TENTERHOOK_ADMIN_URL": f"http://127.0.0.1:{admin}",
    }
    replaced = INSTALLED | {
        "127.0.0.1:9092": cluster.bootstrap,
        "8080 8081 8090 8091": f"{ingest} {admin} {dispatcher} {breaker}",
        "127.0.0.1:9000": f"127.0.0.1:{port}",
        ".venv/bin/tenterhook sink": f"tenterhook sink --port {port}",
    }
    page = Page("docs/your-kafka.md")
    one, two = (Terminal(folder, name, environment, replaced) for name in ("one", "two"))
    asyncio.run(cluster.start())
    try:
        with closing(one), closing(two):
            for start in ("make setup", "export TENTERHOOK_BROKER=", "openssl rand", "export TENTERHOOK_DISPATCHER__"):
                one.paste(page.next(start))
            for start in ("for port in", "field()", "tenterhook apps create", "tenterhook integrations create"):
                one.paste(page.next(start))
            sink = two.leave_running(page.next("TENTERHOOK_SIGNING_SECRET_FILE="))
            two.wait_for(f":{port}", running=sink)
            one.paste(page.next("tenterhook send"))
            two.wait_for(r"#1 order_paid  int_\w+:1  sha256 ✓ webhook ✓ +→ 200", 30)
            assert "delivered" in one.paste(page.next("tenterhook trace"))
            assert "broker" in one.paste(page.next("tenterhook doctor"))
            one.paste(page.next("kill"))
            assert page.is_read()
            for name in ("ingest", "dispatcher", "breaker", "admin"):
                assert "Traceback" not in (folder / f"{name}.log").read_text(), name
    finally:
        cluster.kill()


@contextmanager
def stack(folder: Path) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """
    A running `up` in the folder, an integration, a subscription, deliveries, and a replay that waits.

    Gives the variables of a terminal there, and what is typed in place of what the pages say.
    """
    [port] = free_ports(1)
    with closing(Terminal(folder, "up")) as up, closing(Terminal(folder, "sink")) as sink:
        running = up.leave_running("tenterhook up --ingest-port 0 --admin-port 0")
        up.wait_for(r"\ncurl -i ", 90, running)
        ready = json.loads((folder / ".tenterhook" / "ready.json").read_text())
        receiver = f"http://127.0.0.1:{port}"
        listening = sink.leave_running(f"tenterhook sink --json --port {port}")
        sink.wait_for(f":{port}", running=listening)

        def told(command):
            line = (BIN / "tenterhook", *shlex.split(command), "--json")
            return json.loads(subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)

        told("apps set --max-active 100")
        create = f"integrations create --url {receiver}/hooks --events call_started,call_ended"
        integration = told(f"{create} --name CRM --signing")
        waiting = told(f"{create} --name Waiting")["id"]
        bookings = told(f"integrations create --url {receiver} --name Bookings --events '*' --profile booking")
        told(f"integrations pause {waiting}")
        event = told("send call_ended --payload '{}'")["id"]
        request = sink.wait_for(r"(?m)^(\{.*\})$")
        replay = told(f"replay demo {waiting} --from {_at(hours=-1)} --detach")["id"]
        delivery = told(f"deliveries --integration {integration['id']}")["items"][0]["id"]

        (folder / "request.json").write_text(request)
        (folder / "body.bin").write_text(json.loads(request)["text"])
        (folder / "signing-secret").write_text(integration["signingSecret"])
        (folder / "token.txt").write_text("t-17\n")
        (folder / "booking.json").write_text('{"scheduled_call": {"id": "sc_1"}}')
        (folder / "slack.liquid").write_text(next(block.text for block in blocks("liquid")))
        (folder / "generate").write_text("#!/bin/sh\necho '{}'\n")
        (folder / "generate").chmod(0o755)
        for shell in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
            (folder / shell).mkdir(parents=True)
        shutil.copy(folder / ".tenterhook" / "kek", folder / "kek")
        environment = {
            "HOME": folder,
            "TENTERHOOK_BROKER": ready["broker"],
            "TENTERHOOK_TOKEN": ready["token"],
            "TENTERHOOK_SIGNING_SECRET": integration["signingSecret"],
        }
        replaced = INSTALLED | {
            "http://127.0.0.1:8080": ready["ingest"],
            "http://127.0.0.1:8081": ready["admin"],
            "http://127.0.0.1:9000": receiver,
            "127.0.0.1:9092": ready["broker"],
            "https://crm.example": receiver,
            "https://shop.example": receiver,
            "https://hooks.slack.com": receiver,
            "curl -": "curl --fail-with-body -",
            "generate |": "./generate |",
            "/backups/": "",
            # Into a log that has no configuration yet.
            "tenterhook restore /backups/": "tenterhook restore --topic-prefix restored. ",
            "sk_…": ready["secretKey"],
            "whsec_…": integration["signingSecret"],
            "int_…": integration["id"],
            "sub_…": bookings["id"],
            "dlv_…": delivery,
            "evt_…": event,
            "rpl_…": replay,
            "2026-01-02T00:00:00Z": _at(hours=-1),
            "2026-01-02T03:04:05Z": _at(hours=-1),
            "2026-01-03T00:00:00Z": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
            "tenterhook sink": "tenterhook sink --port 0",
            "--port 9001": "",
        }
        yield environment, replaced
        assert up.interrupt(running) == 0


def _at(**ago: float) -> str:
    return (datetime.now(UTC) + timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_every_block_of_every_other_page(tmp_path):
    """In one stack, and so in one test: workers would start one each."""
    lacks = [name for name, program in NEEDS.items() if shutil.which(program) is None]
    failed = {}
    with stack(tmp_path) as (environment, replaced):
        for name in OTHERS:
            with closing(Terminal(tmp_path, Path(name).stem, environment, replaced)) as terminal:
                try:
                    for block in blocks():
                        if block.page == name and name not in lacks and reason_of(block) is None:
                            paste(terminal, block)
                except AssertionError as error:
                    failed[str(block)] = str(error)

    told = "\n\n".join(f"{block}: {error}" for block, error in failed.items())
    assert failed == {}, f"{told}\n\nWhat cannot be pasted is listed in tests/docs/test_blocks.py, with its reason."
    if lacks:
        pytest.skip(
            f"all but {', '.join(lacks)}, for want of {', '.join(NEEDS[name] for name in lacks)}: make languages"
        )


def paste(terminal, block):
    if block.calls and all(goes_on(call) for call in block.calls):
        until_stopped(terminal, block.text.splitlines())
    else:
        terminal.paste(block.text)


def goes_on(call):
    """Whether a command ends by Ctrl-C alone."""
    return call[0] == "sink" or (call[0] == "results" and "--no-follow" not in call)


def until_stopped(terminal, lines):
    """Each goes on, and ends well by Ctrl-C."""
    running = [terminal.leave_running(line.partition("  #")[0]) for line in lines]
    with suppress(subprocess.TimeoutExpired):
        running[-1].wait(4)
    assert [each.returncode for each in running if each.poll() is not None] == [], terminal.said
    assert {terminal.interrupt(each) for each in running} == {0}, terminal.said


def test_no_block_is_left_out():
    pasted = [block for block in blocks() if block.page in {*READ, *OTHERS} and reason_of(block) is None]
    kept_out = [block for block in blocks() if reason_of(block) is not None]

    assert len(pasted) + len(kept_out) == len(blocks())
    assert len(kept_out) == len(NOT_PASTED)
    assert {block.page for block in kept_out}.isdisjoint(READ)
    assert set(NEEDS) <= set(OTHERS) <= set(pages())
