"""The key that signs the cookies of sessions: one for all processes, kept in Redis, made by the first."""

import secrets

from mqservice import keys
from mqservice.connections import Connections

_BYTES = 32


async def session_key(connections: Connections) -> bytes:
    """Return the key; make it when there is none. 1 round trip. Raises MqError."""

    async def call() -> bytes:
        async with connections.commands.pipeline(transaction=False) as pipeline:
            pipeline.set(keys.SESSION_KEY, secrets.token_bytes(_BYTES), nx=True)
            pipeline.get(keys.SESSION_KEY)
            return bytes((await pipeline.execute())[1])

    return await connections.guard(call)
