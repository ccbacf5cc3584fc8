"""A mend of aiokafka for uvloop: a request on a connection that has just broken fails as Kafka's errors do.

aiokafka expects an OSError of a write; uvloop raises a RuntimeError as long as aiokafka has not noticed the break. When
a broker is killed in that moment, it ends aiokafka's task that refreshes the metadata, without a word in any log. From
then on every search for a group's coordinator waits for ever: no commit, no heartbeat, and after its session the group
gives the partitions to another member, while this one goes on with them as if nothing had happened.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def patch_connections() -> None:
    """Mend every connection of this process, those that are open too; a second call does nothing."""
    AIOKafkaConnection.send = _mended


def _mended(self: Any, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
