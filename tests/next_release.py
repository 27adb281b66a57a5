"""
The command as a release has it that does not exist yet: every record that it writes has a field more.

    python -m tests.next_release dispatcher

All kinds but the one that tells of schemas, which every release has to read.
"""

import runpy

import msgspec

from streams import records

#: The field, and what it says.
FIELD, VALUE = "made_up", "of the next release"


def make_next() -> None:
    """Give records the field, and the codec the schemas that have it. Before anything else of ours is imported."""
    for kind in records.Record.__args__:
        if kind is not records.SharedSchema:
            later = msgspec.defstruct(
                kind.__name__, [(FIELD, str, VALUE)], bases=(kind,), module=kind.__module__, frozen=True, kw_only=True
            )
            setattr(records, kind.__name__, later)
    # Only now: they take the records as they find them.
    from streams import codec
    from tests import later as schemas

    own = codec.released()
    made = {schemas.id_of(name): (name, schemas.text_of(name)) for name in schemas.NEWEST if name != "shared_schema"}
    codec.released = lambda: own | made


if __name__ == "__main__":
    make_next()
    runpy.run_module("services.cli", run_name="__main__")
