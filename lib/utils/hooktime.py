"""How long hook scripts may take.

The master decides, by a number in a file, and tells the nodes in the scripts' environment; the node
ends what takes longer, and the master waits that long for the node's answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .. import constants, pathutils

#: Variable that tells a script, and its node, how many seconds it may take.
VARIABLE: Final = "GANETI_HOOKS_TIMEOUT"


def ParseTimeout(text: str) -> int:
    """Seconds that a script may take, of a text.

    @raise ValueError: no whole number of seconds, or out of range; says so
    """
    wanted = f"must be a whole number of seconds from 1 to {constants.HOOKS_MAX_TIMEOUT}"
    # Not int() alone: it takes signs, underscores and digits of other scripts.
    if not re.fullmatch("[0-9]{1,9}", text.strip()):
        raise ValueError(f"{wanted}, not {text.strip()[:40]!r}")
    value = int(text)
    if not 1 <= value <= constants.HOOKS_MAX_TIMEOUT:
        raise ValueError(f"{wanted}, not {value}")
    return value


def _Warn(problem: str) -> None:
    # Late: the table of node calls needs this module, and a listing the table.
    import logging

    logging.warning("%s; using %s s", problem, constants.HOOKS_TIMEOUT)


def ReadTimeout(path: str = pathutils.HOOKS_TIMEOUT_FILE) -> int:
    """Seconds that a script may take, as the administrator of the master wants it.

    What can't be used is logged, and the default counts.
    """
    from . import io

    try:
        return ParseTimeout(io.ReadFile(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as err:
        _Warn(f"Time-out of hook scripts in {path}: {err}")
    return constants.HOOKS_TIMEOUT


def GetTimeout(env: Mapping[str, str]) -> int:
    """Seconds that a script with this environment may take.

    Masters of 2.1 do not say it: then, and if it is none, the default counts.
    """
    try:
        return ParseTimeout(env[VARIABLE])
    except KeyError:
        pass
    except ValueError as err:
        _Warn(f"{VARIABLE} {err}")
    return constants.HOOKS_TIMEOUT


def GetDirectoryTimeout(timeout: int) -> int:
    """Seconds that all scripts of a directory may take, if each may take C{timeout}."""
    return constants.HOOKS_DIRECTORY_FACTOR * timeout
