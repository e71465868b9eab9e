"""What a command prints beside its tables, and what it asks.

Data goes to standard output, notices go to standard error, questions to the terminal itself: a
script without one gets the answer that changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, TextIO

_CONTROLS: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_QUESTION_WIDTH: Final = 70
#: Names up to that number are shown with the question.
_NAMES_SHOWN: Final = 20

#: What can be answered: word, what answering it means, its description.
Choice = tuple[str, object, str]


def ToStdout(text: str) -> None:
    """Print a line of data."""
    _Write(sys.stdout, text + "\n")
    sys.stdout.flush()


def ToStderr(text: str) -> None:
    """Print a line that is no data."""
    sys.stdout.flush()
    _Write(sys.stderr, text + "\n")
    sys.stderr.flush()


def _Write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        # Somebody called a thing a name that this terminal, or no text at all, can have.
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def OneLine(text: object) -> str:
    """A message as one line: control characters are escaped, all else stays."""
    return "".join(
        char if char.isprintable() else _CONTROLS.get(char) or _Escape(ord(char))
        for char in str(text)
    )


def _Escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def OpenTerminal() -> TextIO | None:
    """The terminal of this process, None if it has none."""
    try:
        # Unbuffered below, as a terminal can not seek, which reading and writing would need
        raw = open("/dev/tty", "r+b", buffering=0)  # noqa: SIM115 - the caller closes it
    except OSError:
        return None
    import io

    return io.TextIOWrapper(raw, write_through=True)


def AskUser(
    text: str, choices: Sequence[Choice] | None = None, terminal: TextIO | None = None
) -> object:
    """Ask on the terminal.

    An empty answer and the end of input stand for the last choice, as does the lack of a terminal.

    @param choices: by default yes and no
    @param terminal: where to ask; opened if it is None
    @return: what the chosen one means
    """
    if choices is None:
        choices = [("y", True, "Perform the operation"), ("n", False, "Do not do the operation")]
    if not choices:
        raise ValueError("There must be something to choose")
    own = None
    if terminal is None:
        own = terminal = OpenTerminal()
        if terminal is None:
            sys.stderr.write(
                f"{text}\nThere is no terminal to ask: the answer is '{choices[-1][0]}'.\n"
            )
            return choices[-1][1]
    try:
        return _Ask(text, choices, terminal)
    finally:
        if own is not None:
            own.close()


def _Ask(text: str, choices: Sequence[Choice], terminal: TextIO) -> object:
    import textwrap

    words = {word: meaning for word, meaning, _ in choices}
    prompt = "/".join([word for word, _, _ in choices[:-1]] + [f"[{choices[-1][0]}]", "?"]) + ": "
    question = "\n".join(
        textwrap.fill(line, _QUESTION_WIDTH, replace_whitespace=False) for line in text.split("\n")
    )
    while True:
        terminal.write(f"{question}\n{prompt}")
        terminal.flush()
        line = terminal.readline()
        answer = line.strip().lower()
        if not answer:
            if not line:
                terminal.write("\n")
            return choices[-1][1]
        if answer in words:
            return words[answer]
        if answer in ("yes", "no") and answer[0] in words:
            return words[answer[0]]
        if answer == "?":
            terminal.write("".join(f" {word} - {about}\n" for word, _, about in choices))


def Confirm(text: str, terminal: TextIO | None = None) -> bool:
    """Ask for yes or no; no without a terminal."""
    return bool(AskUser(text, terminal=terminal))


def AskPassword(prompt: str) -> str | None:
    """Ask for a password on the terminal, which does not show it.

    @return: None without a terminal, and for an empty answer or none
    """
    terminal = OpenTerminal()
    if terminal is None:
        return None
    terminal.close()
    import getpass

    try:
        return getpass.getpass(prompt) or None
    except EOFError:
        return None


class User:
    """The user at the terminal, for what asks only if there is one."""

    def Confirm(self, question: str) -> bool | None:
        """Yes or no; None without a terminal."""
        terminal = OpenTerminal()
        if terminal is None:
            return None
        with terminal:
            return Confirm(question, terminal)

    def AskPassword(self, prompt: str) -> str | None:
        """As the function."""
        return AskPassword(prompt)


def ConfirmOperation(
    names: Sequence[str],
    operation: str,
    what: str = "instances",
    extra: str = "",
    terminal: TextIO | None = None,
) -> bool:
    """Ask whether something shall be done to several objects.

    @param operation: a verb, as in "shutdown"
    @param extra: a warning
    """
    question = (
        f"The {operation} will operate on {len(names)} {what}.\n{extra}Do you want to continue?"
    )
    affected = f"\nAffected {what}:\n" + "\n".join(f"  {name}" for name in names)
    if len(names) <= _NAMES_SHOWN:
        return bool(AskUser(question + affected, terminal=terminal))
    yes: Choice = ("y", True, f"Yes, execute the {operation}")
    no: Choice = ("n", False, f"No, abort the {operation}")
    view: Choice = ("v", "view", f"View the list of affected {what}")
    answer = AskUser(question, [yes, view, no], terminal=terminal)
    if answer == "view":
        answer = AskUser(question + affected, [yes, no], terminal=terminal)
    return bool(answer)
