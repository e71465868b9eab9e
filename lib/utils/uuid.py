"""Random identities and secrets."""

import uuid

from .. import runtime


def NewUUID(runtime: runtime.Runtime = runtime.DEFAULT) -> str:
    """A new random UUID (version 4) as text."""
    return str(uuid.UUID(hex=runtime.random.token_hex(16), version=4))


def GenerateSecret(numbytes: int = 20, runtime: runtime.Runtime = runtime.DEFAULT) -> str:
    """A random secret of so many bytes, as hexadecimal text."""
    return runtime.random.token_hex(numbytes)
