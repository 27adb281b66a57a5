"""`python -m tests.fuzz.libfuzzer TARGET SELF [options and folders of libFuzzer]`: one target under atheris."""

import sys

import atheris

with atheris.instrument_imports(include=["services", "streams", "schemas", "liquid", "idna"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """The process: ends by itself, with libFuzzer's exit code."""
    atheris.Setup(sys.argv[2:], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
