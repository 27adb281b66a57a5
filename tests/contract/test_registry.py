"""Our records through a schema registry with Confluent's API, read by Confluent's own client too."""

import io
import json
import struct

import fastavro
import msgspec
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from services.runtime.registry import use_schema_registry
from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from streams import codec
from streams.codec import FIRST_COMMITTED_ID, Unreadable
from streams.records import Result
from streams.registry import RegistryAway, RegistryRefused, SchemaRegistry
from tests.apps import make_app
from tests.breaking import make_result
from tests.brokers import lacking
from tests.records import make_delivery, make_integration
from tests.registries import apicurio, apicurio_lacks, listening_registry

RECORDS = [make_result(), make_delivery(of="dlv_0"), make_integration(headers={"X-A": b"\x00"}), make_app()]
RELEASED = codec.released()


@pytest.fixture
def registry():
    with listening_registry() as found:
        yield found
    codec.use_no_registry()


def id_of(data: bytes) -> int:
    return struct.unpack_from(">I", data, 1)[0]


def a_newer_release(name: str) -> str:
    """The schema as a release after this one has it: with a field that we do not know."""
    schema = json.loads(codec.schema_text(name))
    schema["fields"].append({"name": "colour", "type": ["null", "string"], "default": None, "doc": "New."})
    return json.dumps(schema)


def written_by_a_newer_release(number: int, result: Result) -> bytes:
    fields = {name: getattr(result, name) for name in result.__struct_fields__} | {"colour": "blue"}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(json.loads(a_newer_release("result"))), fields)
    return struct.pack(">bI", 0, number) + body.getvalue()


@pytest.fixture(scope="module")
def apicurio_url(tmp_path_factory):
    if (missing := apicurio_lacks()) is not None:
        lacking(missing)
    with apicurio(tmp_path_factory.mktemp("apicurio") / "output") as url:
        yield url


@pytest.fixture(params=["ours", "apicurio"])
def confluent(request):
    """Confluent's client to each registry, and its URL."""
    url = (
        request.getfixturevalue("registry").url if request.param == "ours" else request.getfixturevalue("apicurio_url")
    )
    with SchemaRegistryClient({"url": url}) as client:
        yield client, url
    codec.use_no_registry()


def test_every_released_schema_is_registered_by_the_first_and_found_by_the_others(confluent):
    client, url = confluent
    SchemaRegistry(url).use()
    data = codec.encode(make_result())
    versions = {subject: client.get_versions(subject) for subject in client.get_subjects()}
    SchemaRegistry(url).use()

    assert versions.keys() >= {codec.full_name(text) for _, text in RELEASED.values()}
    assert {subject: client.get_versions(subject) for subject in client.get_subjects()} == versions
    assert codec.encode(make_result()) == data
    for _, text in RELEASED.values():
        found = client.lookup_schema(codec.full_name(text), Schema(text, "AVRO"))
        assert json.loads(client.get_schema(found.schema_id).schema_str) == json.loads(text)


def test_records_are_written_with_its_ids_and_confluent_s_own_client_reads_them(confluent):
    client, url = confluent
    SchemaRegistry(url).use()
    written = [codec.encode(record) for record in RECORDS]
    read = AvroDeserializer(client)

    found = [read(data, SerializationContext("tenterhook.any", MessageField.VALUE)) for data in written]

    assert found == [msgspec.to_builtins(record, builtin_types=(bytes,)) for record in RECORDS]
    assert [codec.decode(data) for data in written] == RECORDS


def test_what_was_written_under_committed_ids_stays_readable_and_the_other_way_round(confluent):
    _, url = confluent
    before = [codec.encode(record) for record in RECORDS]
    SchemaRegistry(url).use()
    after = [codec.encode(record) for record in RECORDS]

    assert [codec.decode(data) for data in before] == [codec.decode(data) for data in after] == RECORDS
    assert min(map(id_of, before)) >= FIRST_COMMITTED_ID > max(map(id_of, after))
    assert [data[5:] for data in before] == [data[5:] for data in after]


def test_what_a_newer_release_writes_is_read_and_one_s_own_written_on(confluent):
    client, url = confluent
    SchemaRegistry(url).use()
    number = client.register_schema("tenterhook.Result", Schema(a_newer_release("result"), "AVRO"))

    assert codec.decode(written_by_a_newer_release(number, make_result())) == make_result()
    assert json.loads(codec.text_of(number)) == json.loads(a_newer_release("result"))

    SchemaRegistry(url).use()

    assert 0 < id_of(codec.encode(make_result())) < number


def test_an_unknown_id_is_asked_for_once(registry):
    SchemaRegistry(registry.url).use()
    number = registry.register("tenterhook.Result", a_newer_release("result"))
    data = written_by_a_newer_release(number, make_result())
    registry.asked.clear()

    assert [codec.decode(data), codec.decode(data)] == [make_result()] * 2
    assert registry.asked == [("GET", f"/schemas/ids/{number}")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "is unknown"),
        ('"string"', "of no record of ours"),
        ('{"type": "record", "name": "Result", "namespace": "others", "fields": []}', "of no record of ours"),
    ],
)
def test_an_id_of_others_is_unreadable(registry, text, why):
    SchemaRegistry(registry.url).use()
    number = 999 if text is None else registry.register("others", text)

    with pytest.raises(Unreadable, match=why):
        codec.decode(struct.pack(">bI", 0, number) + b"x")


def test_where_it_goes_away_known_ids_are_read_and_unknown_ones_asked_for_again_later(registry):
    now_s = 100.0
    SchemaRegistry(registry.url, clock_s=lambda: now_s).use()
    known = codec.encode(make_result())
    number = registry.register("tenterhook.Result", a_newer_release("result"))
    unknown = written_by_a_newer_release(number, make_result())
    registry.asked.clear()

    registry.broken = (500, b"{}")
    for _ in range(3):
        with pytest.raises(Unreadable, match="answers 500"):
            codec.decode(unknown)
    assert codec.decode(known) == make_result()
    assert len(registry.asked) == 1, "not at every record"

    registry.broken, now_s = None, 105.0
    assert codec.decode(unknown) == make_result()


def test_one_that_takes_no_schema_will_do_where_they_are_there(registry):
    registry.read_only = True
    with pytest.raises(RegistryRefused, match=r"refuses tenterhook.Event: 403 Not allowed to write"):
        SchemaRegistry(registry.url).use()

    registry.read_only = False
    for _, text in dict(sorted(RELEASED.items())).values():
        registry.register(codec.full_name(text), text)
    registry.read_only = True
    SchemaRegistry(registry.url).use()


def test_one_that_holds_something_else_under_our_names_is_refused(registry):
    registry.register(
        "tenterhook.Event", '{"type": "record", "name": "Event", "namespace": "tenterhook", "fields": []}'
    )

    with pytest.raises(RegistryRefused, match=r"refuses tenterhook.Event: 409"):
        SchemaRegistry(registry.url).use()


def settings(registry, **changes) -> Settings:
    return Settings(schema_registry_url=registry.url, **changes)


def test_a_service_with_a_registry_uses_it_with_its_credentials(registry):
    registry.credentials = "tenterhook:pass:word"
    with pytest.raises(StartupError, match=r"401 Unauthorized. Check TENTERHOOK_SCHEMA_REGISTRY_CREDENTIALS"):
        use_schema_registry(settings(registry))

    use_schema_registry(settings(registry, schema_registry_credentials="tenterhook:pass:word"))

    assert id_of(codec.encode(make_result())) in registry.schemas


def test_credentials_come_from_a_file_too(registry, tmp_path):
    registry.credentials = "tenterhook:pass:word"
    file = tmp_path / "credentials"
    file.write_text("tenterhook:pass:word\n")
    use_schema_registry(settings(registry, schema_registry_credentials_file=file))
    assert id_of(codec.encode(make_result())) in registry.schemas

    with pytest.raises(StartupError, match="take one"):
        use_schema_registry(
            settings(registry, schema_registry_credentials="a:b", schema_registry_credentials_file=file)
        )
    file.write_bytes(b"tenterhook:pass\xff")
    for odd in (file, tmp_path / "missing"):
        with pytest.raises(StartupError, match=r"CREDENTIALS_FILE\) cannot be read") as refused:
            use_schema_registry(settings(registry, schema_registry_credentials_file=odd))
        assert "pass" not in str(refused.value).replace(str(odd), "")


def test_a_service_does_not_start_without_its_registry(registry):
    registry.broken = (503, b"")
    with pytest.raises(StartupError, match="answers 503"):
        use_schema_registry(settings(registry))
    registry.broken = (200, b"<html>")
    with pytest.raises(StartupError, match="does not answer as a schema registry"):
        use_schema_registry(settings(registry))
    with pytest.raises(StartupError, match=r"http://127.0.0.1:9 does not answer \(ConnectError\). Start it"):
        use_schema_registry(Settings(schema_registry_url="http://127.0.0.1:9"))
    with pytest.raises(RegistryAway):
        SchemaRegistry("http://127.0.0.1:9").text(1)

    assert id_of(codec.encode(make_result())) >= FIRST_COMMITTED_ID


def test_a_service_waits_a_while_for_its_registry(registry, monkeypatch):
    registry.broken = (503, b"")
    monkeypatch.setattr("services.runtime.registry.time.sleep", lambda _: setattr(registry, "broken", None))

    use_schema_registry(settings(registry), patience_s=30)

    assert id_of(codec.encode(make_result())) in registry.schemas
    assert registry.asked[0] == registry.asked[1]
