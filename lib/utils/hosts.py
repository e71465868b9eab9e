"""Editing a hosts file (C{/etc/hosts}): replace an address, take a name away.

Comments stay where they are, other lines are changed only if they have to be.
"""

from collections.abc import Iterable, Sequence

from . import io, text


def SetEtcHostsEntry(file_name: str, ip: str, hostname: str, aliases: Sequence[str]) -> None:
    """Make the names the only ones of an address; the new line is the last of the file."""
    names = text.UniqueSequence([hostname, *aliases])
    kept = [line for line in _ReadLines(file_name) if _Words(line)[:1] != [ip]]
    _WriteLines(file_name, [*kept, f"{ip}\t{' '.join(names)}"])


def RemoveEtcHostsEntry(file_name: str, hostname: str) -> None:
    """Take a name away from all addresses; an address without names left vanishes."""
    lines = []
    for line in _ReadLines(file_name):
        words = _Words(line)
        if hostname not in words[1:]:
            lines.append(line)
            continue
        names = [name for name in words[1:] if name != hostname]
        if names:
            lines.append(" ".join([words[0], *names]))
    _WriteLines(file_name, lines)


def ParseHosts(content: str) -> Iterable[tuple[str, list[str]]]:
    """(address, names) of each entry, in the order of the file."""
    for line in content.splitlines():
        words = _Words(line.partition("#")[0])
        if len(words) > 1:
            yield words[0], words[1:]


def _Words(line: str) -> list[str]:
    """Words of an entry; none for a comment."""
    return [] if line.lstrip().startswith("#") else line.split()


def _ReadLines(file_name: str) -> list[str]:
    return io.ReadFile(file_name).splitlines()


def _WriteLines(file_name: str, lines: Iterable[str]) -> None:
    io.WriteFile(file_name, data="".join(f"{line}\n" for line in lines), mode=0o644)
