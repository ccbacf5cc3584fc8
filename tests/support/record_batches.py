"""Record batches byte by byte, sound and hostile, and how they are put into a topic without any producer's opinion."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c

from core.kafka.record_format import HEAD

FIRST_MS = 1_700_000_000_000
ENCODERS = {"gzip": (1, gzip_encode), "snappy": (2, snappy_encode), "lz4": (3, lz4_encode), "zstd": (4, zstd_encode)}


def varint(value: int) -> bytes:
    """Write a zigzag number."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sized(content: bytes | None) -> bytes:
    """Write bytes with their length."""
    return varint(-1) if content is None else varint(len(content)) + content


def record(
    delta: int, key: bytes | None = b"k", value: bytes | None = b"v", headers: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """Write a record, with its length."""
    inner = b"\0" + varint(0) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    return sized(inner + b"".join(sized(name) + sized(content) for name, content in headers))


def batch(
    records: Sequence[bytes],
    *,
    base: int = 0,
    codec: str | None = None,
    body: bytes | None = None,
    attributes: int = 0,
    count: int | None = None,
    last_delta: int | None = None,
    producer: int = -1,
    magic: int = 2,
    crc: int | None = None,
    length: int | None = None,
) -> bytes:
    """Write a batch; every part may be a lie."""
    inner = b"".join(records) if body is None else body
    if codec is not None:
        number, encode = ENCODERS[codec]
        attributes |= number
        inner = bytes(encode(inner)) if body is None else inner
    epoch, sequence = (0, 0) if producer >= 0 else (-1, -1)
    count = len(records) if count is None else count
    last_delta = count - 1 if last_delta is None else last_delta

    def packed(checksum: int) -> bytes:
        size = HEAD.size - 12 + len(inner) if length is None else length
        return (
            HEAD.pack(
                base,
                size,
                -1,
                magic,
                checksum,
                attributes,
                last_delta,
                FIRST_MS,
                FIRST_MS,
                producer,
                epoch,
                sequence,
                count,
            )
            + inner
        )

    return packed(calc_crc32c(packed(0)[21:]) if crc is None else crc)


_THREE = [record(n) for n in range(3)]
HOSTILE = {
    "checksum": batch(_THREE, base=3, crc=1),
    "codec 7": batch(_THREE, base=3, attributes=7),
    "zstd data is damaged": batch(_THREE, base=3, codec="zstd", body=b"no such thing"),
    "gzip data is": batch(_THREE, base=3, codec="gzip", body=b"\x1f\x8b"),
    "format 9": batch(_THREE, base=3, magic=9),
    "the rest of a batch": batch([record(0), b"\x7e" + record(1)[1:]], base=3, count=3),
    "calls itself offset 4": batch([record(0), record(1), record(1)], base=3),
    "calls itself offset 500": batch([record(0), record(497), record(2)], base=3),
    "a number of more than ten bytes": batch([record(0), b"\xff" * 20], base=3, count=3),
}
"""A part of the reason that is told → a batch of the offsets 3 to 5."""


async def produce(bootstrap: str, tp: TopicPartition, raw: bytes) -> int:
    """Have a batch written as it is; returns its first offset, raises what the broker says against it."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, client_id="raw")
    try:
        await client.bootstrap()
        await client.set_topics([tp.topic])
        leader = client.cluster.leader_for_partition(tp)
        asked = bytes(8) + raw[8:]  # a producer counts from 0; the checksum does not cover it
        request = ProduceRequest(None, -1, 30_000, [(tp.topic, [(tp.partition, asked)])])
        response = await client.send(leader, request)
        ((_, ((_, code, offset, *_),)),) = response.topics
        if code:
            raise for_code(code)
        return int(offset)
    finally:
        await client.close()
