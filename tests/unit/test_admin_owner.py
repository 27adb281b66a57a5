"""What becomes of a command: made once, for the state that it was decided for, and nothing else."""

import asyncio

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.admin.audit import FIRST, Chains, chained, verified
from services.admin.changes import integration_writes
from services.admin.owner import Owner, _Writers, judge
from streams import codec
from streams.connection import Connection
from streams.records import AuditRecord, Command, Write
from tests.records import make_integration

NOW_MS = 1_800_000_000_000


def command(number=0, *, app="demo", head=FIRST, writes=(), **changes):
    audit = chained(
        id=f"aud_{number}",
        app=app,
        at_ms=NOW_MS,
        who="ada",
        ip=None,
        action="integration.pause",
        target="int_1",
        allowed=True,
        details={},
        previous_hash=head,
    )
    given = Command(
        id=audit.id,
        app=app,
        reply_to="admin-1",
        until_ms=NOW_MS + 10_000,
        audit=codec.encode(audit),
        writes=list(writes),
    )
    return msgspec.structs.replace(given, **changes)


def audit_of(made):
    return codec.decode_as(AuditRecord, made.audit)


def judged(made, *, head=FIRST, is_made=False, now_ms=NOW_MS):
    return judge(made, head=head, is_made=is_made, now_ms=now_ms)


def test_a_command_for_the_end_of_the_chain_is_made():
    made = command(writes=integration_writes(make_integration()))

    assert judged(made).outcome == "done"
    assert judged(made).audit == audit_of(made)


def test_a_command_for_another_end_is_stale_and_writes_nothing():
    made = judged(command(head=b"another"))

    assert (made.outcome, made.audit) == ("stale", None)


def test_a_command_that_was_made_is_told_again_and_not_made_again():
    made = judged(command(), head=b"the chain went on", is_made=True, now_ms=NOW_MS + 60_000)

    assert (made.outcome, made.audit) == ("done", None)


def test_a_command_that_nobody_waits_for_is_late():
    assert judged(command(), now_ms=NOW_MS + 10_000).outcome == "done"
    assert judged(command(), now_ms=NOW_MS + 10_001).outcome == "late"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "aud_other"},
        {"app": "other"},
        {"audit": b""},
        {"audit": codec.encode(make_integration())},
        {"writes": [Write(topic="delivery-results", key="int_1", value=b"")]},
    ],
)
def test_what_no_process_of_ours_makes_is_refused(changes):
    made = judged(msgspec.structs.replace(command(), **changes))

    assert (made.outcome, made.audit) == ("refused", None)
    assert made.reason


def test_an_audit_record_whose_hash_is_wrong_is_refused():
    forged = msgspec.structs.replace(audit_of(command()), who="eve")

    assert judged(command(audit=codec.encode(forged))).outcome == "refused"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=30))
def test_whatever_is_asked_in_whatever_order_the_chains_hold(asked):
    """Each command was decided some commands ago; those that are made form one unbroken chain an app."""
    ends = {"a": [FIRST], "b": [FIRST]}
    log = []
    for number, (app, behind) in enumerate(asked):
        head = ends[app][max(0, len(ends[app]) - 1 - behind)]
        one = judged(command(number, app=app, head=head), head=ends[app][-1])
        if one.audit is not None:
            log.append(one.audit)
            ends[app].append(one.audit.hash)

    assert list(verified(log)) == []
    assert [len(each) - 1 for each in ends.values()] == [sum(record.app == app for record in log) for app in ends]


@pytest.mark.parametrize("tamper", ["change", "remove", "swap"])
def test_a_record_that_is_changed_or_taken_out_shows(tamper):
    log, head = [], FIRST
    for number in range(4):
        log.append(audit_of(command(number, head=head)))
        head = log[-1].hash
    assert list(verified(log)) == []

    if tamper == "change":
        log[1] = msgspec.structs.replace(log[1], who="eve")
    elif tamper == "remove":
        del log[1]
    else:
        log[1], log[2] = log[2], log[1]

    assert list(verified(log))


async def test_a_change_is_one_line_without_values_also_where_its_commit_was_not_heard(monkeypatch):
    """The writer gave up, and the audit log shows that the change was made all the same."""
    chains = Chains()
    owner = Owner(Connection("127.0.0.1:9"), chains, None, now_ms=lambda: NOW_MS, may_write=lambda: True)
    heard = iter([KafkaTimeoutError()])

    async def write(*_):
        if (error := next(heard, None)) is not None:
            raise error

    async def tell(*_):
        pass

    monkeypatch.setattr(owner, "_write", write)
    monkeypatch.setattr(owner, "_tell", tell)
    config = make_integration("int_1", url="https://crm.example/secret-place")
    made = command(1, writes=integration_writes(config))
    refused = command(2, app="other", audit=codec.encode(chained_as_refused()))

    with capture_logs() as lines:
        with pytest.raises(KafkaTimeoutError):
            await owner._make(None, [made])
        assert lines == []
        chains.apply(b"demo", made.audit, 0)
        for _ in range(2):
            await owner._make(None, [made, refused])

    [line] = lines
    told = {name: line[name] for name in ("event", "kind", "app", "target", "integration", "who", "change")}
    assert told == {
        "event": "change.applied",
        "kind": "integration.pause",
        "app": "demo",
        "target": "int_1",
        "integration": "int_1",
        "who": "ada",
        "change": "aud_1",
    }
    assert "secret-place" not in str(line)


def chained_as_refused():
    """Of a change that was asked for and not allowed: it is recorded, and nothing has changed."""
    return chained(
        id="aud_2",
        app="other",
        at_ms=NOW_MS,
        who="eve",
        ip=None,
        action="secret.reveal",
        target="int_2",
        allowed=False,
        details={},
        previous_hash=FIRST,
    )


class Teller:
    """A producer that keeps to which topics it has sent; *lost*: those whose next record is not, in this order."""

    def __init__(self, *lost):
        self.lost = list(lost)
        self.sent = []

    async def send(self, topic, value, key=None, headers=None):
        future = asyncio.get_running_loop().create_future()
        if topic in self.lost[:1]:
            del self.lost[0]
            future.set_exception(KafkaTimeoutError())
        else:
            self.sent.append(topic)
            future.set_result(None)
        return future


@pytest.fixture
def owner(monkeypatch):
    made = Owner(Connection("127.0.0.1:9"), Chains(), None, now_ms=lambda: NOW_MS, may_write=lambda: True)

    async def write(*_):
        pass

    monkeypatch.setattr(made, "_write", write)
    return made


ASKED = command(1, writes=[Write(topic="deliveries", key="int_1", value=b"dlv_1")])
SENT = ["tenterhook.deliveries", "tenterhook.command-replies"]


@pytest.mark.parametrize("batches", [[[ASKED, ASKED]], [[ASKED], [ASKED]], [[ASKED, ASKED], [ASKED]]])
async def test_a_command_that_stands_twice_sends_its_delivery_once_and_is_answered_each_time(owner, batches):
    """Who asked heard nothing of the first, though it was there, and sent it again."""
    teller = Teller()
    for batch in batches:
        await owner._make(_Writers(None, teller, has_transactions=True), batch)

    asked = sum(map(len, batches))
    assert [teller.sent.count(topic) for topic in SENT] == [1, asked]


@pytest.mark.parametrize("lost", [SENT[:1], SENT[:1] * 2, SENT[1:], SENT])
async def test_what_was_not_told_is_told_when_the_command_is_made_again(owner, lost):
    teller = Teller(*lost)
    writers = _Writers(None, teller, has_transactions=True)
    for _ in lost:
        with pytest.raises(KafkaTimeoutError):
            await owner._make(writers, [ASKED])
    await owner._make(writers, [ASKED])

    assert teller.sent == SENT


async def test_only_so_many_commands_are_known_to_be_told(owner, monkeypatch):
    monkeypatch.setattr("services.admin.owner.REMEMBERED", 2)
    writers, head = _Writers(None, Teller(), has_transactions=True), FIRST
    for number in range(5):
        made = command(number, head=head)
        head = audit_of(made).hash
        await owner._make(writers, [made])

    assert list(owner._told) == ["aud_3", "aud_4"]
