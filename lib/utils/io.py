"""Files and directories: reading, atomic writing, checking, measuring.

Texts are UTF-8; bytes that are none survive a round trip (surrogateescape). Whatever replaces a
file replaces it whole: temporary file in the same directory, write, fsync, rename, fsync of the
directory.
"""

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .. import errors
from . import text

_ENCODING: Final = "utf-8"
_ENCODING_ERRORS: Final = "surrogateescape"
#: TailFile looks at no more than this.
_TAIL_BYTES: Final = 4096
_READ_CHUNK: Final = 128 * 1024
#: Names of files that are being written, here and in L{runtime}; with the writer's process id.
_UNFINISHED_RE: Final = re.compile(r".+\.([0-9]{1,9})-\w+\.new(?:\.[0-9]+)?")


# Reading


def ReadBinary(file_name: str, size: int = -1) -> bytes:
    """Content of a file, at most C{size} bytes of it unless that is negative."""
    with open(file_name, "rb") as fobj:
        return fobj.read(size)


def ReadFile(file_name: str, size: int = -1) -> str:
    """Content of a text file, at most C{size} bytes of it unless that is negative."""
    return _Decode(ReadBinary(file_name, size))


def _Decode(data: bytes) -> str:
    return data.decode(_ENCODING, _ENCODING_ERRORS)


def ReadOneLineFile(file_name: str, strict: bool = False) -> str:
    """First non-empty line of a file, without its line end.

    Raises: GenericError if there is none, or, with C{strict}, if there are several.
    """
    lines = [line for line in ReadBinary(file_name).splitlines() if line]
    if not lines:
        raise errors.GenericError(f"No data in one-line file {file_name}")
    if strict and len(lines) > 1:
        raise errors.GenericError(f"Too many lines in one-line file {file_name}: {len(lines)}")
    return _Decode(lines[0])


def TailFile(file_name: str, lines: int = 20) -> list[str]:
    """Last lines of a file; looks only at its last 4096 bytes."""
    with open(file_name, "rb") as fobj:
        fobj.seek(0, os.SEEK_END)
        fobj.seek(max(0, fobj.tell() - _TAIL_BYTES))
        data = fobj.read()
    return [_Decode(line) for line in data.splitlines()[-lines:]]


def ReadWatcherPauseFile(
    file_name: str, now: float | None = None, remove_after: float = 3600
) -> int | None:
    """Until when the watcher is to pause, as epoch seconds; None if it is not.

    A file that can't be understood, or is out of date for more than C{remove_after} seconds, is
    removed.
    """
    if now is None:
        now = time.time()
    try:
        content = ReadFile(file_name)
    except FileNotFoundError:
        return None
    try:
        value = int(content)
    except ValueError:
        logging.warning(
            "Removing watcher pause file %s: '%s' is no time in seconds since the epoch",
            file_name,
            text.SafeEncode(content.strip()),
        )
        RemoveFile(file_name)
        return None
    if now > value + remove_after:
        RemoveFile(file_name)
        return None
    return value if now <= value else None


# Writing


def WriteFile(
    file_name: str,
    fn: Callable[[int], object] | None = None,
    data: str | bytes | None = None,
    mode: int | None = None,
    uid: int = -1,
    gid: int = -1,
    atime: float | None = None,
    mtime: float | None = None,
    close: bool = True,
    dry_run: bool = False,
    backup: bool = False,
    prewrite: Callable[[int], object] | None = None,
    postwrite: Callable[[int], object] | None = None,
    keep_owner: bool = False,
) -> int | None:
    """Replace a file by one with new content; on any error the old one stays as it is.

    Arguments:
      - file_name: absolute path
      - fn, data: exactly one of them: what writes to the descriptor, or the content
      - mode: permissions, in force before the first byte is written; None or 0 = 0600,
        whatever those of the old file are
      - uid, gid: owner; -1 = that of the process, or with keep_owner that of the old file
      - atime, mtime: both or none, epoch seconds
      - close: False = leave the descriptor of the new file open (it may carry a lock)
      - dry_run: do everything but the replacing
      - backup: keep a copy of an existing regular file (CreateBackup)
      - prewrite, postwrite: called with the descriptor before and after the content is written

    Returns: the open descriptor if C{close} is False, else None.

    Raises: ProgrammerError for arguments that contradict each other; OSError; whatever the
    functions raise.
    """
    if not os.path.isabs(file_name):
        raise errors.ProgrammerError(f"Path passed to WriteFile is not absolute: '{file_name}'")
    if (fn is None) == (data is None):
        raise errors.ProgrammerError("WriteFile needs exactly one of fn and data")
    if (atime is None) != (mtime is None):
        raise errors.ProgrammerError("WriteFile needs both or none of atime and mtime")

    if backup and not dry_run and os.path.isfile(file_name):
        CreateBackup(file_name)
    if keep_owner:
        uid, gid = _OwnerOfFile(file_name, uid, gid)

    dir_name, base_name = os.path.split(file_name)
    fd, new_name = _MakeTemporary(dir_name, f"{base_name}.{os.getpid()}-", ".new")
    keep_temp = False
    keep_fd = False
    try:
        if uid != -1 or gid != -1:
            os.fchown(fd, uid, gid)
        if mode:
            os.fchmod(fd, mode)
        if prewrite is not None:
            prewrite(fd)
        if fn is not None:
            fn(fd)
        elif data is not None:
            WriteAll(fd, data)
        if postwrite is not None:
            postwrite(fd)
        os.fsync(fd)
        if atime is not None and mtime is not None:
            os.utime(new_name, (atime, mtime))
        if not dry_run:
            os.rename(new_name, file_name)
            keep_temp = True
            SyncDirectory(dir_name)
        keep_fd = not close
    finally:
        if not keep_fd:
            os.close(fd)
        if not keep_temp:
            RemoveFile(new_name)
    return fd if keep_fd else None


def WriteAll(fd: int, data: str | bytes) -> None:
    """Write all of the data, however little the system takes at a time."""
    if isinstance(data, str):
        data = data.encode(_ENCODING, _ENCODING_ERRORS)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def SyncDirectory(path: str) -> None:
    """Make what was created, renamed or removed in a directory survive a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as err:
        # Some file systems (FUSE, 9p) can't sync a directory; that is no reason to fail.
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _MakeTemporary(dir_name: str, prefix: str, suffix: str = "") -> tuple[int, str]:
    """Descriptor and path of a new file with mode 0600."""
    # Imported here: listings only read, and this brings half of the library's packers along.
    import tempfile

    return tempfile.mkstemp(suffix=suffix, prefix=prefix, dir=dir_name)


def UnfinishedBy(name: str) -> int:
    """Process that writes the file of that name, which will have another one when it is done; 0
    for any other file."""
    match = _UNFINISHED_RE.fullmatch(name)
    return int(match.group(1)) if match else 0


def RemoveUnfinished(directory: str) -> None:
    """Remove what processes that died while they wrote a file left in a directory."""
    try:
        names = os.listdir(directory)
    except OSError as err:
        logging.warning("Can't look for unfinished files in %s: %s", directory, err)
        return
    for name in names:
        pid = UnfinishedBy(name)
        if pid and not os.path.exists(f"/proc/{pid}"):
            logging.info("Removing the unfinished file %s/%s", directory, name)
            try:
                RemoveFile(os.path.join(directory, name))
            except OSError as err:
                logging.warning("Can't remove the unfinished file: %s", err)


def _OwnerOfFile(file_name: str, uid: int, gid: int) -> tuple[int, int]:
    try:
        old = os.stat(file_name)
    except FileNotFoundError:
        return uid, gid
    return (old.st_uid if uid == -1 else uid, old.st_gid if gid == -1 else gid)


def CreateBackup(file_name: str) -> str:
    """Copy a regular file (mode 0600) to a name with the time and a random part beside it.

    Returns: path of the copy.

    Raises: ProgrammerError if there is no regular file of that name.
    """
    if not os.path.isfile(file_name):
        raise errors.ProgrammerError(f"Can't make a backup of '{file_name}': not a regular file")
    dir_name, base_name = os.path.split(file_name)
    with open(file_name, "rb") as source:
        fd, backup_name = _MakeTemporary(dir_name, _BackupPrefix(base_name))
        try:
            with open(fd, "wb") as target:
                while chunk := source.read(_READ_CHUNK):
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
        except OSError:
            RemoveFile(backup_name)
            raise
    SyncDirectory(dir_name or ".")
    return backup_name


def MoveToBackup(file_name: str) -> str | None:
    """Give a file the name that L{CreateBackup} would give its copy: also if the disk is full.

    Returns: its new path; None if there is no such file.
    """
    # Imported here for what it brings along.
    import secrets

    dir_name, base_name = os.path.split(file_name)
    while True:
        backup_name = os.path.join(dir_name, _BackupPrefix(base_name) + secrets.token_hex(4))
        try:
            # Takes nobody's place, which a rename would.
            os.link(file_name, backup_name)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        os.unlink(file_name)
        SyncDirectory(dir_name or ".")
        return backup_name


def _BackupPrefix(base_name: str) -> str:
    return f"{base_name}.backup-{TimestampForFilename()}."


def TimestampForFilename(now: float | None = None) -> str:
    """Local time as C{YYYY-MM-DD_HH_MM_SS}; default is the current time."""
    return time.strftime("%Y-%m-%d_%H_%M_%S", time.localtime(now))


# Removing, renaming, making


def RemoveFile(file_name: str) -> None:
    """Remove a file; a missing one and a directory are no error."""
    try:
        os.unlink(file_name)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # POSIX lets unlink(2) of a directory fail with EPERM, Linux says EISDIR
        if not os.path.isdir(file_name):
            raise


def RemoveDir(dir_name: str) -> None:
    """Remove an empty directory; a missing one is no error."""
    try:
        os.rmdir(dir_name)
    except FileNotFoundError:
        return


def RenameFile(old: str, new: str, mkdir: bool = False, mkdir_mode: int = 0o750) -> None:
    """Rename a file, with C{mkdir} making the target's directory if it is missing."""
    try:
        os.rename(old, new)
    except FileNotFoundError:
        if not mkdir:
            raise
        Makedirs(os.path.dirname(new), mode=mkdir_mode)
        os.rename(old, new)


def Makedirs(path: str, mode: int = 0o750) -> None:
    """Make a directory and those above it; existing ones are left alone."""
    os.makedirs(path, mode, exist_ok=True)


def EnsureDirs(dirs: Iterable[tuple[str, int]]) -> None:
    """Make sure that each of (path, mode) is a directory with these permissions.

    Only the last component is made; the mode is set in any case.

    Raises: GenericError, naming the directory.
    """
    for path, mode in dirs:
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            pass
        except OSError as err:
            raise errors.GenericError(f"Cannot create needed directory '{path}': {err}") from err
        if not os.path.isdir(path):
            raise errors.GenericError(f"'{path}' is needed as a directory, but is something else")
        try:
            os.chmod(path, mode)
        except OSError as err:
            raise errors.GenericError(
                f"Cannot change permissions of directory '{path}' to 0{mode:o}: {err}"
            ) from err


# Looking


def ListVisibleFiles(path: str) -> list[str]:
    """Sorted names in a directory, without those that start with a dot.

    Raises: ProgrammerError if the path is not absolute and normalized.
    """
    if not IsNormAbsPath(path):
        raise errors.ProgrammerError(
            f"Path passed to ListVisibleFiles is not absolute or not normalized: '{path}'"
        )
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def FindFile(
    name: str, search_path: Iterable[str], test: Callable[[str], bool] = os.path.exists
) -> str | None:
    """First path of a plugin (a script, an OS) along a list of directories, or None.

    Names with other characters than letters, digits, C{_} and C{-} are never found.
    """
    if not text.IsPluginName(name):
        logging.critical(
            "Invalid value passed for external script name: '%s'", text.SafeEncode(name)
        )
        return None
    for dir_name in search_path:
        path = os.path.join(dir_name, name)
        if test(path):
            return path
    return None


def FingerprintFile(file_name: str, algorithm: str = "sha1") -> str | None:
    """Checksum of a regular file in lower-case hexadecimal; None if there is no such file.

    SHA-1 by default, which is what the file comparison of the node protocol speaks.
    """
    import hashlib

    try:
        with open(file_name, "rb") as fobj:
            if not stat.S_ISREG(os.fstat(fobj.fileno()).st_mode):
                return None
            digest = hashlib.new(algorithm, usedforsecurity=False)
            while chunk := fobj.read(_READ_CHUNK):
                digest.update(chunk)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return digest.hexdigest()


def FingerprintFiles(files: Iterable[str], algorithm: str = "sha1") -> dict[str, str]:
    """Checksum by path; files that are missing or not regular are left out."""
    result = {}
    for file_name in files:
        # looked at first: opening a named pipe would wait for ever
        if os.path.isfile(file_name):
            fingerprint = FingerprintFile(file_name, algorithm)
            if fingerprint is not None:
                result[file_name] = fingerprint
    return result


def CalculateDirectorySize(path: str) -> int:
    """Size of all files below a directory in MiB; symbolic links count themselves."""
    size = 0
    for dir_path, _, files in os.walk(path):
        for name in files:
            try:
                size += os.lstat(os.path.join(dir_path, name)).st_size
            except FileNotFoundError:
                # gone since it was listed
                continue
    return text.BytesToMebibyte(size)


def GetFilesystemStats(path: str) -> tuple[int, int]:
    """(total, available to everybody) space in MiB of the file system that the path is on."""
    st = os.statvfs(path)
    return (
        text.BytesToMebibyte(st.f_blocks * st.f_frsize),
        text.BytesToMebibyte(st.f_bavail * st.f_frsize),
    )


def GetHomeDir(user: str | int, default: str | None = None) -> str | None:
    """Home directory of a user given by name or id; C{default} if there is no such user."""
    import pwd

    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return default
    return entry.pw_dir


# Paths


def IsNormAbsPath(path: str) -> bool:
    """Whether a path is absolute and has no redundant parts."""
    return os.path.isabs(path) and os.path.normpath(path) == path


def PathJoin(first: str, *others: str) -> str:
    """Join parts of a path such that the result stays below the first one.

    Raises: ValueError if the first is not absolute and normalized, or a part leads out of it
    (C{..}, an absolute path) or is empty.
    """
    if not IsNormAbsPath(first):
        raise ValueError(f"Invalid root for PathJoin: '{first}' is not absolute or not normalized")
    result = os.path.join(first, *others)
    if not IsNormAbsPath(result):
        raise ValueError(f"Invalid parameters to PathJoin: {_ShowParts(first, others)}")
    if result != first and not result.startswith(first.rstrip("/") + "/"):
        raise ValueError(
            f"Invalid parameters to PathJoin: {_ShowParts(first, others)} leads out of '{first}'"
        )
    return result


def _ShowParts(first: str, others: Sequence[str]) -> str:
    return text.CommaJoin(repr(part) for part in (first, *others))
