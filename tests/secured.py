"""
A cluster that asks who comes: Kafka nodes with TLS both ways, SCRAM and ACLs, and users for every service.

Certificates are made here. `BROKER` may everything; the others may what `streams.grants` says, once `allow` has run.
"""

from collections.abc import Mapping
from pathlib import Path

import trustme
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest, CreateAclsRequest_v1
from cryptography.hazmat.primitives import serialization

from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.kafka_files import HOST, NodePlan
from services.runtime.connection import security_of
from services.runtime.settings import KafkaSettings
from streams.connection import Connection
from streams.grants import GRANTS, Grant

BROKER = "broker"
MECHANISM = "SCRAM-SHA-512"
#: Kafka's numbers.
_KINDS = {"topic": 2, "group": 3, "transactional_id": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Delete": 6, "Describe": 8, "DescribeConfigs": 10}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3


class SecuredKafka(KafkaBroker):
    """The cluster; `files` has what clients need."""

    def __init__(self, data: Path, *, nodes: int = 3) -> None:
        super().__init__(data / "kafka", nodes=nodes)
        self.files = data / "files"
        self.files.mkdir(parents=True)
        self._make_certificates()
        self.passwords = {user: f"{user}-pa55word" for user in (BROKER, *GRANTS)}
        for user, password in self.passwords.items():
            (self.files / f"{user}.password").write_text(f"{password}\n")
        self.format_options = tuple(
            part
            for user, password in self.passwords.items()
            for part in ("--add-scram", f"{MECHANISM}=[name={user},password={password}]")
        )
        self.security = security_of(self.settings(BROKER))

    def settings(self, user: str, **changes: object) -> KafkaSettings:
        """Those of a client that is this user."""
        return KafkaSettings.model_validate(
            {
                "security_protocol": "SASL_SSL",
                "ca_file": self.files / "ca.pem",
                "certificate_file": self.files / "client.pem",
                "key_file": self.files / "client.key",
                "sasl_mechanism": MECHANISM,
                "user": user,
                "password_file": self.files / f"{user}.password",
            }
            | changes
        )

    def environment(self, user: str) -> dict[str, str]:
        """The same as variables."""
        given = self.settings(user).model_dump(exclude_none=True)
        return {f"TENTERHOOK_KAFKA__{name.upper()}": str(value) for name, value in given.items()}

    def connection(self, user: str, prefix: str = "tenterhook.", **changes: object) -> Connection:
        return Connection(self.bootstrap, prefix, security=security_of(self.settings(user, **changes)))

    async def allow(self, prefix: str, grants: Mapping[str, tuple[Grant, ...]] = GRANTS) -> None:
        """Give the users what they may."""
        await self.send(_Acls(prefix, grants))

    async def send(self, acls: "_Acls") -> None:
        """Let the cluster know them."""
        client = AIOKafkaClient(**self.connection(BROKER).client_options)
        try:
            await client.bootstrap()
            answer = await client.send(client.get_random_node(), acls)
        finally:
            await client.close()
        assert {code for code, _ in answer.creation_responses} == {0}, answer

    def _make_certificates(self) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.files / "ca.pem")
        trustme.CA().cert_pem.write_to_path(self.files / "other-ca.pem")
        broker, client = ca.issue_cert(HOST), ca.issue_cert("tenterhook.example")
        key = serialization.load_pem_private_key(broker.private_key_pem.bytes(), None)
        # Java wants PKCS #8, and key and certificates in one file.
        as_pkcs8 = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(each.bytes() for each in broker.cert_chain_pems)
        (self.files / "broker.pem").write_bytes(as_pkcs8 + chain)
        client.private_key_pem.write_to_path(self.files / "client.key")
        (self.files / "client.pem").write_bytes(b"".join(each.bytes() for each in client.cert_chain_pems))

    def _properties(self, plan: NodePlan, folder: Path) -> str:
        listener = f"SASL_SSL://{HOST}:{plan.port}"
        login = "org.apache.kafka.common.security.scram.ScramLoginModule"
        secured = {
            "listeners": f"{listener},CONTROLLER://{HOST}:{plan.controller_port}",
            "advertised.listeners": listener,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": MECHANISM,
            "sasl.mechanism.inter.broker.protocol": MECHANISM,
            f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": (
                f'{login} required username="{BROKER}" password="{self.passwords[BROKER]}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.files / "broker.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.files / "ca.pem",
            # Without the listener's name it would not count: SASL says who comes, as a rule.
            "listener.name.sasl_ssl.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The second: controllers among themselves, on loopback.
            "super.users": f"User:{BROKER};User:ANONYMOUS",
        }
        # Of two lines with one name the later counts.
        return super()._properties(plan, folder) + "".join(f"{name}={value}\n" for name, value in secured.items())


class _Acls(CreateAclsRequest):
    """All of them in one request; aiokafka's own takes one."""

    API_KEY = CreateAclsRequest.API_KEY
    __orig_bases__ = CreateAclsRequest.__orig_bases__

    def __init__(self, prefix: str, grants: Mapping[str, tuple[Grant, ...]]) -> None:
        self._rows = [
            (
                _KINDS[grant.kind],
                prefix + grant.name,
                _PREFIXED if grant.is_prefix else _LITERAL,
                f"User:{user}",
                "*",
                _OPERATIONS[operation],
                _ALLOW,
            )
            for user, granted in grants.items()
            for grant in granted
            for operation in grant.operations
        ]

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        assert request_struct_class is CreateAclsRequest_v1
        return request_struct_class(self._rows)
