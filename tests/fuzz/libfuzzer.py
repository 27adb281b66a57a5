"""`python -m tests.fuzz.libfuzzer TARGET SELF [options and folders of libFuzzer]`: one target under atheris."""

import io
import sys
from contextlib import suppress
from typing import Any

import atheris

with atheris.instrument_imports(include=["services", "streams", "schemas", "liquid", "idna", "fastavro"]):
    from fastavro._read_py import schemaless_reader as read_in_python

    from streams import codec
    from tests.fuzz.targets import TARGETS


def _show_the_way() -> None:
    """Read each record in Python first: what fastavro does in C, the fuzzer does not see."""
    read = codec.fastavro.schemaless_reader

    def guided(body: io.BytesIO, *schemas: Any) -> Any:
        start = body.tell()
        with suppress(Exception):
            read_in_python(body, *schemas)
        body.seek(start)
        return read(body, *schemas)

    codec.fastavro.schemaless_reader = guided


def main() -> None:
    """The process: ends by itself, with libFuzzer's exit code."""
    _show_the_way()
    atheris.Setup(sys.argv[2:], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
