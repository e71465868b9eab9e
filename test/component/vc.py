"""A virtual cluster seen from the outside: commands, files, remote API."""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
VCLUSTER = str(TREE / "tools" / "vcluster")


def CleanEnvironment():
    """An environment in which nothing says that this process is a virtual node."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GANETI_")}


class Result:
    """What a command printed and how it ended."""

    def __init__(self, completed):
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr

    @property
    def rows(self):
        """Lines of the standard output, split at colons."""
        return [line.split(":") for line in self.out.splitlines()]


class Cluster:
    """A virtual cluster in a directory.

    @ivar prefix: words before each command, such as those of nsenter
    """

    def __init__(self, directory, prefix=()):
        self.directory = directory
        self.prefix = tuple(prefix)
        self._env = None

    def Vcluster(self, command, *args, timeout=120):
        """Run a command of tools/vcluster on this cluster."""
        return Result(
            subprocess.run(
                [*self.prefix, VCLUSTER, command, "--dir", self.directory, *args],
                env=CleanEnvironment(),
                capture_output=True,
                text=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        )

    @property
    def env(self):
        """Environment of a shell on the first node."""
        if self._env is None:
            shell = self.Vcluster("env").out + "env -0"
            out = subprocess.run(
                ["sh", "-c", shell], env=CleanEnvironment(), capture_output=True, text=True
            ).stdout
            self._env = dict(item.split("=", 1) for item in out.split("\0") if "=" in item)
        return self._env

    def Run(self, *argv, timeout=60, stdin=""):
        """Run a command as on the master."""
        return Result(
            subprocess.run(
                [*self.prefix, *argv],
                env=self.env,
                capture_output=True,
                text=True,
                timeout=timeout,
                input=stdin,
            )
        )

    def Ok(self, *argv, **kwargs):
        """Run a command that must succeed; its standard output."""
        result = self.Run(*argv, **kwargs)
        assert result.code == 0, f"{argv}: {result.code}\n{result.out}\n{result.err}"
        return result.out

    def Table(self, *argv):
        """A listing as rows of fields."""
        out = self.Ok(*argv[:2], "--no-headers", "--separator=|", *argv[2:])
        return [line.split("|") for line in out.splitlines()]

    def Root(self, node="node1"):
        return Path(self.directory) / f"{node}.example.com"

    def Data(self, name, node="node1"):
        """A file of a node's data directory."""
        return self.Root(node) / "var/lib/ganeti" / name

    def Config(self, node="node1"):
        return json.loads(self.Data("config.data", node).read_text())

    def Address(self, node="node1"):
        for line in (self.Root() / "etc/hosts").read_text().splitlines():
            words = line.split()
            if f"{node}.example.com" in words:
                return words[0]
        raise AssertionError(f"no address of {node}")

    def Rapi(self, method, path, body=None, password=None):
        """A request to RAPI: (status, document)."""
        if password is None:
            password = self.Data("rapi_users").read_text().split()[1]
        context = ssl.create_default_context(cafile=str(self.Data("rapi.pem")))
        request = urllib.request.Request(
            f"https://{self.Address()}:5080{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as err:
            return err.code, json.loads(err.read() or b"null")

    def Logs(self):
        """The end of every daemon's log, for a failed test."""
        parts = []
        for path in sorted(Path(self.directory).glob("*/var/log/ganeti/*.log")):
            parts.append(f"== {path}\n" + "\n".join(path.read_text().splitlines()[-30:]))
        return "\n".join(parts)


def WaitFor(condition, timeout=30, what="the condition"):
    """Return the first true value of a function that is asked again and again."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout} seconds"
        time.sleep(0.1)
