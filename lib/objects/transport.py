"""Objects that are not stored in the configuration but travel between processes."""

from __future__ import annotations

import configparser
import io
from typing import Any

from .. import errors
from .base import ConfigObject


class OS(ConfigObject):
    """An operating system definition as found on a node.

    @ivar path: directory of the definition
    @ivar api_versions: OS API versions that it claims
    @ivar supported_variants: names of its variants; empty or None if it has none
    """

    name: str
    path: str
    api_versions: list[int]
    create_script: str
    export_script: str
    import_script: str
    rename_script: str
    verify_script: str | None
    supported_variants: list[str] | None


class BlockDevStatus(ConfigObject):
    """State of a block device on a node.

    @ivar sync_percent: None if it is not synchronizing
    @ivar estimated_time: seconds until it is in sync; None if not known
    @ivar is_degraded: the device as a whole has less redundancy than it should
    @ivar ldisk_status: state of the local data, one of C{LDS_*}
    """

    dev_path: str
    major: int | None
    minor: int | None
    sync_percent: float | None
    estimated_time: float | None
    is_degraded: bool
    ldisk_status: int


class ConfdRequest(ConfigObject):
    """Inner message of a question to confd.

    @ivar rsalt: salt that the answer must carry
    """

    protocol: int
    type: int
    query: Any
    rsalt: str


class ConfdReply(ConfigObject):
    """Inner message of an answer of confd.

    @ivar serial: of the configuration that the answer comes from
    """

    protocol: int
    status: int
    answer: Any
    serial: int


class SerializableConfigParser(configparser.RawConfigParser):
    """An INI file in memory, as exports have it; a percent sign means nothing."""

    def optionxform(self, optionstr: str) -> str:
        """Names of options keep their case."""
        return optionstr

    def Dumps(self) -> str:
        """The text of the file."""
        buf = io.StringIO()
        self.write(buf)
        return buf.getvalue()

    @classmethod
    def Loads(cls, text: str) -> SerializableConfigParser:
        """Read the text of a file.

        @raise errors.ConfigurationError: it is no INI file
        """
        parser = cls()
        try:
            parser.read_string(text)
        except configparser.Error as err:
            raise errors.ConfigurationError(f"Broken INI file: {err}") from err
        return parser
