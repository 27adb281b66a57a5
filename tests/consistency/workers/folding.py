"""Folds a log into a history's file, batch by batch, from where the file is; a line for each."""

import sys
from pathlib import Path

import msgspec

from services.history.store import Raw, Store

BATCH = 20


def main(directory: str, log_file: str) -> None:
    log = msgspec.msgpack.decode(Path(log_file).read_bytes(), type=list[list[Raw]])
    store = Store(Path(directory))
    at = {partition: store.positions().get(partition, 0) for partition in range(len(log))}
    while any(at[partition] < len(records) for partition, records in enumerate(log)):
        batch = [raw for partition, records in enumerate(log) for raw in records[at[partition] : at[partition] + BATCH]]
        at = {partition: min(at[partition] + BATCH, len(records)) for partition, records in enumerate(log)}
        store.fold(batch, at)
        sys.stdout.write("folded\n")  # the first one takes longer than all others together: it loads every schema
        sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
