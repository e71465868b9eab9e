"""How file contents travel in node calls: C{[encoding, text]}.

Short texts go as they are, everything else as zlib in base64, which also carries bytes that are no
text.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any, Final

from .. import constants

#: Contents of so many bytes are worth compressing.
COMPRESS_FROM: Final = 512
_ZLIB_LEVEL: Final = 3


def EncodeData(content: str | bytes, compress_from: int = COMPRESS_FROM) -> list[Any]:
    """The wire form of a file's content.

    @param compress_from: bytes of a text that is worth compressing
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    if len(data) < compress_from:
        try:
            return [constants.RPC_ENCODING_NONE, data.decode("utf-8")]
        except UnicodeDecodeError:
            pass
    packed = base64.b64encode(zlib.compress(data, _ZLIB_LEVEL)).decode("ascii")
    return [constants.RPC_ENCODING_ZLIB_BASE64, packed]


def DecodeData(encoded: Sequence[Any]) -> bytes:
    """The content from its wire form.

    @raise ValueError: it is not the wire form of anything
    """
    if not (isinstance(encoded, (list, tuple)) and len(encoded) == 2):
        raise ValueError("Encoded file content must be a pair of encoding and text")
    encoding, text = encoded
    if not isinstance(text, str):
        raise ValueError(f"Encoded file content must be text, not {type(text).__name__}")
    if encoding == constants.RPC_ENCODING_NONE:
        return text.encode("utf-8", "surrogateescape")
    if encoding == constants.RPC_ENCODING_ZLIB_BASE64:
        try:
            return zlib.decompress(base64.b64decode(text, validate=True))
        except (binascii.Error, zlib.error) as err:
            raise ValueError(f"Encoded file content can't be decoded: {err}") from err
    raise ValueError(f"Unknown encoding of file content: {encoding!r}")
