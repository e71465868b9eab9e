"""Definitions of guest operating systems on this node: finding and checking them.

Design: OS API, OS Variants. An OS is a directory of scripts along the search path. It lists the
versions of the interface that it speaks; the highest one that we speak as well is the one it is
judged by and run with, so a definition that also speaks a newer one than ours is no worse for it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from .. import constants, objects, pathutils
from ..utils import io, text
from .base import Fail

#: [name, path, valid, message, variants]
Diagnosis = tuple[str, str, bool, str, list[str]]

_VARIANT_RE: Final = re.compile(r"[a-zA-Z0-9_.-]+", re.ASCII)


class InvalidOS(Exception):  # noqa: N818 - a finding, not an error
    """Why a definition can't be used; the argument is a text for people."""


def SplitName(name: str) -> tuple[str, str]:
    """Name of the definition and variant (maybe empty) of an instance's OS."""
    base, _, variant = name.partition(constants.OS_VARIANT_SEPARATOR)
    return base, variant


def ChosenApiVersion(
    versions: Iterable[int], supported: Iterable[int] = constants.OS_API_VERSIONS
) -> int | None:
    """The version that a definition is run with: the highest one that both sides speak."""
    return max(set(versions) & set(supported), default=None)


def ParseApiVersions(content: str) -> list[int]:
    """Versions that a definition lists, one a line.

    @raise InvalidOS: a line is no number
    """
    try:
        return [int(line.strip()) for line in content.splitlines()]
    except ValueError as err:
        raise InvalidOS(f"API version(s) can't be converted to integer: {err}") from err


def ParseVariants(content: str) -> list[str]:
    """Variants that a definition lists, one a line; empty lines and C{#} comments are skipped.

    @raise InvalidOS: one has a name that can't be
    """
    lines = [line.strip() for line in content.splitlines()]
    variants = [line for line in lines if line and not line.startswith("#")]
    for variant in variants:
        if not _VARIANT_RE.fullmatch(variant):
            raise InvalidOS(f"Invalid variant name {variant!r}")
    return text.UniqueSequence(variants)


def _ErrorName(err: OSError) -> str:
    return errno.errorcode.get(err.errno or 0, str(err.errno))


def _CheckRegular(directory: str, name: str) -> os.stat_result:
    """Make sure that a file of a definition is there, links followed."""
    try:
        st = os.stat(os.path.join(directory, name))
    except OSError as err:
        raise InvalidOS(
            f"File '{name}' under path '{directory}' is missing ({_ErrorName(err)})"
        ) from err
    if not stat.S_ISREG(st.st_mode):
        raise InvalidOS(f"File '{name}' under path '{directory}' is not a regular file")
    return st


def _ReadText(directory: str, name: str) -> str:
    try:
        return io.ReadFile(os.path.join(directory, name))
    except OSError as err:
        raise InvalidOS(
            f"Error while reading file '{name}' under path '{directory}' ({_ErrorName(err)})"
        ) from err


def _LoadVariants(directory: str) -> list[str]:
    """The declared variants; none if there is no such file.

    @raise InvalidOS: the file is there but can't be read, or declares nothing
    """
    if not os.path.lexists(os.path.join(directory, constants.OS_VARIANTS_FILE)):
        return []
    _CheckRegular(directory, constants.OS_VARIANTS_FILE)
    variants = ParseVariants(_ReadText(directory, constants.OS_VARIANTS_FILE))
    if not variants:
        raise InvalidOS(
            f"File '{constants.OS_VARIANTS_FILE}' under path '{directory}' declares no variant"
        )
    return variants


def LoadOS(name: str, directory: str) -> objects.OS:
    """The definition in a directory.

    @raise InvalidOS: it can't be used
    """
    if not text.IsPluginName(name):
        raise InvalidOS(f"Invalid OS name '{text.SafeEncode(name)}'")
    if not os.path.isdir(directory):
        raise InvalidOS(f"OS '{name}' is not a directory")
    _CheckRegular(directory, constants.OS_API_FILE)
    versions = ParseApiVersions(_ReadText(directory, constants.OS_API_FILE))
    chosen = ChosenApiVersion(versions)
    if chosen is None:
        raise InvalidOS(
            f"API version mismatch for path '{directory}': found {text.CommaJoin(versions)},"
            f" want {text.CommaJoin(sorted(constants.OS_API_VERSIONS))}"
        )

    scripts = list(constants.OS_SCRIPTS)
    if chosen >= constants.OS_API_V20:
        scripts.append(constants.OS_SCRIPT_VERIFY)
        _CheckRegular(directory, constants.OS_PARAMETERS_FILE)
    for script in scripts:
        if not _CheckRegular(directory, script).st_mode & stat.S_IXUSR:
            raise InvalidOS(f"File '{script}' under path '{directory}' is not executable")

    def Script(kind: str) -> str:
        return os.path.join(directory, kind)

    return objects.OS(
        name=name,
        path=directory,
        api_versions=versions,
        create_script=Script(constants.OS_SCRIPT_CREATE),
        export_script=Script(constants.OS_SCRIPT_EXPORT),
        import_script=Script(constants.OS_SCRIPT_IMPORT),
        rename_script=Script(constants.OS_SCRIPT_RENAME),
        verify_script=(
            Script(constants.OS_SCRIPT_VERIFY) if constants.OS_SCRIPT_VERIFY in scripts else None
        ),
        supported_variants=(_LoadVariants(directory) if chosen >= constants.OS_API_V15 else []),
    )


def DiagnoseOS(search_path: Sequence[str] = tuple(pathutils.OS_SEARCH_PATH)) -> list[Diagnosis]:
    """Everything along the search path that could be a definition, also what can't be used.

    Later ones of the same name, which are hidden by earlier ones, are listed as well.
    """
    result: list[Diagnosis] = []
    for directory in search_path:
        try:
            names = io.ListVisibleFiles(directory)
        except OSError:
            # Not every node has every directory.
            continue
        for name in names:
            path = os.path.join(directory, name)
            try:
                os_obj = LoadOS(name, path)
            except InvalidOS as err:
                result.append((name, path, False, str(err), []))
            else:
                result.append((name, path, True, "", list(os_obj.supported_variants or [])))
    return result


def FindOS(name: str, search_path: Sequence[str] = tuple(pathutils.OS_SEARCH_PATH)) -> objects.OS:
    """The definition of an OS, the first one along the search path.

    @param name: maybe with a variant, which makes no difference
    @raise InvalidOS: there is none, or it can't be used
    """
    base, _ = SplitName(name)
    path = io.FindFile(base, search_path, os.path.isdir)
    if path is None:
        raise InvalidOS(
            f"There is no OS '{text.SafeEncode(base)}' in {text.CommaJoin(search_path)}"
        )
    return LoadOS(base, path)


def OSFromDisk(
    name: str, search_path: Sequence[str] = tuple(pathutils.OS_SEARCH_PATH)
) -> objects.OS:
    """As L{FindOS}, for a call.

    @raise RPCFail: there is none, or it can't be used
    """
    try:
        return FindOS(name, search_path)
    except InvalidOS as err:
        Fail(str(err))
