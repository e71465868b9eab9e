"""The shell command that is the console of an instance, by kind of hypervisor.

Pure functions of an instance and its parameters: the master builds the command, ssh carries it to
the primary node. Nothing here looks at the node it runs on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from . import constants, errors, pathutils
from .utils import text

if TYPE_CHECKING:
    from . import objects

#: Displays of VNC are counted from this port.
_VNC_BASE_PORT: Final = 5900
#: Our own terminal program, for nodes without socat; runs on nothing but Python.
_CONSOLE_HELPER: Final = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "hypervisor", "kvm_console.py"
)


#: The better one of the shells of a chroot.
_CHROOT_SHELL: Final = "test -x /bin/bash && exec /bin/bash -l; exec /bin/sh -l"


def KvmSerialSocket(instance_name: str) -> str:
    """UNIX socket of the serial console of a KVM instance, on its own node."""
    return f"{pathutils.RUN_GANETI_DIR}/kvm-hypervisor/ctrl/{instance_name}.serial"


def _OnNode(path: str, node_name: str) -> str:
    """A path of this node as it is on another one, which may be below another root directory."""
    if not pathutils.IsVirtual():
        return path
    return pathutils.VirtualNodeRoot(node_name) + path.removeprefix(pathutils.ROOTDIR)


def _Echo(message: str) -> str:
    return text.ShellQuoteArgs(["echo", message])


def _FakeConsole(instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    return _Echo(f"Console not available for fake hypervisor (instance {instance.name})")


def _XenConsole(instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    return text.ShellQuoteArgs(["xl", "console", instance.name])


def _XenHvmConsole(instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    return text.ShellQuoteArgs(["xl", "console", "-t", "serial", instance.name])


def _ChrootConsole(instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    root = f"{pathutils.RUN_GANETI_DIR}/chroot-hypervisor/{instance.name}"
    # By itself chroot would run the shell of the node's user, which the instance may not have.
    return text.ShellQuoteArgs(
        ["chroot", _OnNode(root, instance.primary_node), "/bin/sh", "-c", _CHROOT_SHELL]
    )


def _KvmConsole(instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    commands = []
    address = hvparams[constants.HV_VNC_BIND_ADDRESS]
    port = instance.network_port
    if address and not address.startswith("/") and port is not None and port > _VNC_BASE_PORT:
        commands.append(
            _Echo(
                f"Instance {instance.name} can also be reached by VNC at {address}:{port}"
                f" (display {port - _VNC_BASE_PORT})"
            )
        )
    if hvparams[constants.HV_SERIAL_CONSOLE]:
        socket = _OnNode(KvmSerialSocket(instance.name), instance.primary_node)
        socat = [
            pathutils.SOCAT_PATH,
            f"STDIO,raw,echo=0,escape={constants.SOCAT_ESCAPE_CODE}",
            f"UNIX-CONNECT:{socket}",
        ]
        # -I: only Python's own library, whatever lies beside the helper.
        helper = [sys.executable or "python3", "-I", _CONSOLE_HELPER, socket]
        # The node decides: the master can not know what is installed there.
        commands.append(
            f"if test -x {text.ShellQuote(pathutils.SOCAT_PATH)};"
            f" then exec {text.ShellQuoteArgs(socat)};"
            f" else exec {text.ShellQuoteArgs(helper)}; fi"
        )
    elif not commands:
        commands.append(
            _Echo(
                f"No serial console for instance {instance.name}: set its hypervisor parameter"
                f" {constants.HV_SERIAL_CONSOLE} or {constants.HV_VNC_BIND_ADDRESS}"
            )
        )
    return "; ".join(commands)


_CONSOLES: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], str]]] = {
    constants.HT_FAKE: _FakeConsole,
    constants.HT_XEN_PVM: _XenConsole,
    constants.HT_XEN_HVM: _XenHvmConsole,
    constants.HT_CHROOT: _ChrootConsole,
    constants.HT_KVM: _KvmConsole,
}


def GetShellCommand(kind: str, instance: objects.Instance, hvparams: Mapping[str, Any]) -> str:
    """Shell command to run on the primary node of an instance, with a terminal.

    @param hvparams: the filled hypervisor parameters of the instance
    @raise errors.HypervisorError: there is no such kind of hypervisor
    """
    try:
        function = _CONSOLES[kind]
    except KeyError:
        raise errors.HypervisorError(f"Unknown hypervisor type {kind!r}") from None
    return function(instance, hvparams)
