"""Lines that tell whether they are as they were written: a checksum, a space, the content."""

from __future__ import annotations

import zlib
from typing import Final

_DIGITS: Final = 8


def Format(content: bytes) -> bytes:
    """The line, with its newline.

    @param content: without a newline
    """
    return b"%08x %s\n" % (zlib.crc32(content), content)


def Parse(line: bytes) -> bytes | None:
    """The content of a line without its newline; None if it is not one as it was written."""
    checksum, _, content = line.partition(b" ")
    try:
        if len(checksum) != _DIGITS or int(checksum, 16) != zlib.crc32(content):
            return None
    except ValueError:
        return None
    return content
