"""
Ids and results as the history keeps them: small. Pure.

Our own ids are a prefix and 32 hex digits, kept as 16 bytes; whatever else stands in their place is kept as text.

A result is kept as it was on the wire, compressed with the `pattern` of its integration as zlib's dictionary: most of
a result is what every result of its integration has. Measured on results of 0.9 KB: 290 bytes instead of 600, in two
thirds of the time.
"""

import zlib
from typing import Final

import msgspec

from streams import codec
from streams.records import Result

DELIVERY: Final = "dlv_"
EVENT: Final = "evt_"
RECORD: Final = "rec_"

_DIGITS: Final = 32

#: zlib's fastest. The better ones take twice the time for a tenth fewer bytes.
_LEVEL: Final = 1
#: Without zlib's own header and checksum: 11 bytes each.
_RAW: Final = -15
_MEMORY: Final = 8

#: Of a pattern, at most: URL and headers of a request. A longer one would cost more time with each result.
_PATTERN_BYTES: Final = 4_096


def packed_id(text: str, prefix: str) -> bytes | str:
    """The id in 16 bytes where it is the prefix and 32 hex digits, else as it is."""
    if not text.startswith(prefix) or len(text) != len(prefix) + _DIGITS:
        return text
    try:
        packed = bytes.fromhex(text[len(prefix) :])
    except ValueError:
        return text
    return packed if packed.hex() == text[len(prefix) :] else text  # it takes capitals and blanks too


def unpacked_id(packed: bytes | str, prefix: str) -> str:
    """The id that was packed."""
    return packed if isinstance(packed, str) else prefix + packed.hex()


def pattern_of(result: Result) -> bytes:
    """
    What results of its integration have in common, to compress them with.

    It is kept as long as the integration has results, which is longer than this one: so nothing of the answer is in
    it but the names of its headers.
    """
    names = dict.fromkeys(result.response_headers, "")
    bare = msgspec.structs.replace(result, detail=None, response_headers=names, response_body=b"")
    return codec.encode(bare)[:_PATTERN_BYTES]


def packed_record(value: bytes, pattern: bytes) -> bytes:
    """A result's bytes, compressed."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, pattern)
    return packer.compress(value) + packer.flush()


def unpacked_record(packed: bytes, pattern: bytes) -> bytes:
    """
    The bytes that were packed.

    Raises:
        zlib.error: they were not, or not with this pattern.
    """
    unpacker = zlib.decompressobj(_RAW, pattern)
    return unpacker.decompress(packed) + unpacker.flush()
