"""Odd values in every path and query that is described: each is told as a problem that is described as well."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from services.admin.openapi import described
from services.runtime.settings import AdminSettings
from tests.admins import admin_at, client_of, furnish

DOCUMENT = described()

#: Of a path: NUL, the end of a line, half a pair, no UTF-8, what the router could take for its own, what is long.
NAMES = ("%00", "a%0Ab", "%ED%A0%80", "%FF", "*", "%2F", "+", "%25", "%F0%9F%98%80", "a%22b", "1" * 5_000)
#: Of a query: beside these, times that no calendar of ours has, and numbers that fit nowhere.
VALUES = (
    *("", "%00", "%ED%A0%80", "%FF", "a%0Ab", "%F0%9F%98%80", "-1", "0", "1e3", "9" * 400, "9" * 5_000),
    *("9223372036854775808", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2016-12-31T23:59:60Z"),
)
OTHER = {"app": "demo", "version": "1"}


def requests() -> Iterator[tuple[str, str, bytes | None, dict[str, Any]]]:
    """Method, path with query, body, and the answers that are described."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            body = b"{}" if "requestBody" in operation else None
            places = re.findall(r"\{(\w+)\}", path)
            for odd in places:
                for name in NAMES:
                    filled = {place: name if place == odd else OTHER.get(place, "int_1") for place in places}
                    yield method, path.format(**filled), body, operation["responses"]
            for parameter in operation["parameters"]:
                if parameter["in"] == "query":
                    filled = {place: OTHER.get(place, "int_1") for place in places}
                    for value in VALUES:
                        asked = f"{path.format(**filled)}?{parameter['name']}={value}"
                        yield method, asked, body, operation["responses"]


def codes(responses: dict[str, Any], status: int) -> list[str]:
    """What a refusal with this status may say."""
    reference = responses.get(str(status), {}).get("$ref", "").rpartition("/")[2]
    return reference.split(".")[1:]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_odd_values_are_told_as_described(kafka_connection):
    await furnish(kafka_connection)
    told, undescribed = set(), []
    async with admin_at(kafka_connection, admin=AdminSettings(port=0)) as admin, client_of(admin) as api:
        for method, path, body, responses in requests():
            answer = await api.request(method, path, content=body)
            if answer.status_code < 400:
                assert str(answer.status_code) in responses, (method, path)
                continue
            code = answer.json()["code"]
            told.add(code)
            if code not in codes(responses, answer.status_code):
                undescribed.append((method, path[:100], answer.status_code, code))
        wrong_method = await api.get("/v1/apps/demo/deliveries/retry")

    assert undescribed == []
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "POST")
    assert {"app_unknown", "delivery_unknown", "integration_unknown", "invalid_query", "no_such_type"} <= told
