"""What the parameters of the hypervisors must look like.

The table of parameters itself is in L{_paramtables}; here its checks become code. The master needs
this and nothing of a hypervisor's execution code: it checks syntax (L{CheckParameterSyntax})
without looking at the system. A node then looks at files and accounts (L{ValidateParameters}).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from . import constants, errors, pathutils
from ._paramtables import (
    CHECK_CHOICE,
    CHECK_DIR,
    CHECK_FILE,
    CHECK_IP,
    CHECK_IP_OR_PATH,
    CHECK_LETTERS,
    CHECK_NONE,
    CHECK_PATH,
    CHECK_PORT,
    HV_PARAMS,
    Param,
)
from .utils import io, net, text

Test = Callable[[Any], bool]


class System(NamedTuple):
    """What validation on a node looks at."""

    is_file: Callable[[str], bool]
    is_dir: Callable[[str], bool]
    has_user: Callable[[str], bool]


def _HasUser(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


REAL_SYSTEM: Final = System(os.path.isfile, os.path.isdir, _HasUser)


def _IsNormAbsPath(value: object) -> bool:
    return isinstance(value, str) and io.IsNormAbsPath(value)


def _IsPort(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65535


def _IsIP(value: object) -> bool:
    return isinstance(value, str) and net.IsValidIP(value)


_PATH_TEXT: Final = "must be an absolute normalized path"


def _Syntax(param: Param) -> tuple[Test | None, str]:
    """Test of a value's form, and what it demands."""
    choices = param.choices
    tests: dict[str, tuple[Test | None, str]] = {
        CHECK_NONE: (None, ""),
        CHECK_FILE: (_IsNormAbsPath, _PATH_TEXT),
        CHECK_DIR: (_IsNormAbsPath, _PATH_TEXT),
        CHECK_PATH: (_IsNormAbsPath, _PATH_TEXT),
        CHECK_PORT: (_IsPort, "must be a port number above 0 and below 65535"),
        CHECK_CHOICE: (choices.__contains__, f"must be one of: {text.CommaJoin(choices)}"),
        CHECK_LETTERS: (
            lambda value: isinstance(value, str) and set(value) <= set(choices),
            f"must consist of the letters {''.join(choices)}",
        ),
        CHECK_IP: (_IsIP, "must be an IPv4 address"),
        CHECK_IP_OR_PATH: (
            lambda value: _IsIP(value) or _IsNormAbsPath(value),
            "must be an IPv4 address or an absolute normalized path",
        ),
    }
    return tests[param.check]


class ParamCheck(NamedTuple):
    """One parameter of one hypervisor with its checks.

    C{syntax} is None where every value will do.
    """

    param: Param
    syntax: Test | None
    syntax_text: str


#: hypervisor -> parameter name -> description and checks
TABLES: Final[Mapping[str, Mapping[str, ParamCheck]]] = {
    kind: {param.name: ParamCheck(param, *_Syntax(param)) for param in table}
    for kind, table in HV_PARAMS.items()
}

#: Parameters of the whole cluster, which no instance can have values of its own for.
GLOBALS: Final = constants.HVC_GLOBALS

#: Files of the administrator that every node with the hypervisor needs alike, where they exist.
_XEN_FILES: Final = (
    "/etc/xen/xend-config.sxp",
    "/etc/xen/xl.conf",
    "/etc/xen/scripts/vif-bridge",
)
ANCILLARY_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    constants.HT_XEN_PVM: _XEN_FILES,
    constants.HT_XEN_HVM: (*_XEN_FILES, pathutils.VNC_PASSWORD_FILE),
    constants.HT_KVM: (pathutils.KVM_NETWORK_SCRIPT,),
    constants.HT_FAKE: (),
    constants.HT_CHROOT: (),
}


def _Table(hypervisor: str) -> Mapping[str, ParamCheck]:
    try:
        return TABLES[hypervisor]
    except KeyError:
        known = text.CommaJoin(sorted(TABLES))
        raise errors.HypervisorError(
            f"Unknown hypervisor '{hypervisor}'; there are: {known}"
        ) from None


def _Refuse(hypervisor: str, name: str, value: object, demand: str) -> errors.HypervisorError:
    return errors.HypervisorError(
        f"Hypervisor {hypervisor}: parameter '{name}' is {value!r} but {demand}"
    )


def _CheckXenPvmTogether(params: Mapping[str, Any]) -> str | None:
    """Which demand of one xen-pvm parameter on another is not met."""
    if params[constants.HV_USE_BOOTLOADER] and not params[constants.HV_BOOTLOADER_PATH]:
        return "'use_bootloader' is set, so 'bootloader_path' must be set too"
    return None


def _CheckKvmTogether(params: Mapping[str, Any]) -> str | None:
    """Which demand of one KVM parameter on another is not met."""
    if params[constants.HV_KERNEL_PATH] and not params[constants.HV_ROOT_PATH]:
        return "'kernel_path' is set, so 'root_path' must be set too"
    if params[constants.HV_VNC_X509_VERIFY] and not params[constants.HV_VNC_X509]:
        return "'vnc_x509_verify' is set, so 'vnc_x509_path' must be set too"
    if (
        params[constants.HV_BOOT_ORDER] == constants.HT_BO_CDROM
        and not params[constants.HV_CDROM_IMAGE_PATH]
    ):
        return "'boot_order' is cdrom, so 'cdrom_image_path' must be set too"
    model = params[constants.HV_SECURITY_MODEL]
    domain = params[constants.HV_SECURITY_DOMAIN]
    if model == constants.HT_SM_USER and not domain:
        return "'security_model' is user, so 'security_domain' must name the user"
    if model != constants.HT_SM_USER and domain:
        return f"'security_model' is {model}, so 'security_domain' must be empty"
    return None


_TOGETHER: Final[Mapping[str, Callable[[Mapping[str, Any]], str | None]]] = {
    constants.HT_XEN_PVM: _CheckXenPvmTogether,
    constants.HT_KVM: _CheckKvmTogether,
}


def CheckParameterSyntax(hypervisor: str, params: Mapping[str, Any]) -> None:
    """Check the form of all parameters of a hypervisor, without looking at the system.

    @param params: filled parameters: each one of the hypervisor must be there
    @raise errors.HypervisorError: unknown, missing, empty though needed, or of a wrong form
    """
    table = _Table(hypervisor)
    for name in params:
        if name not in table:
            known = text.CommaJoin(text.NiceSort(table)) or "none"
            raise errors.HypervisorError(
                f"Hypervisor {hypervisor} has no parameter '{name}'; there are: {known}"
            )
    for name, check in table.items():
        if name not in params:
            raise errors.HypervisorError(
                f"Hypervisor {hypervisor}: parameter '{name}' is missing; give it or its default"
            )
        value = params[name]
        if not value:
            if check.param.required:
                raise _Refuse(hypervisor, name, value, "must not be empty")
        elif check.syntax is not None and not check.syntax(value):
            raise _Refuse(hypervisor, name, value, check.syntax_text)
    if hypervisor in _TOGETHER:
        problem = _TOGETHER[hypervisor](params)
        if problem is not None:
            raise errors.HypervisorError(f"Hypervisor {hypervisor}: {problem}")


def ValidateParameters(
    hypervisor: str, params: Mapping[str, Any], system: System = REAL_SYSTEM
) -> None:
    """Check on a node that what the parameters name is there.

    @param params: filled parameters whose syntax was checked; empty and missing ones are skipped
    @raise errors.HypervisorError: a file, directory or account is missing on this node
    """
    for name, check in _Table(hypervisor).items():
        value = params.get(name)
        if not value:
            continue
        if check.param.check == CHECK_FILE and not system.is_file(value):
            raise _Refuse(hypervisor, name, value, "there is no such file on this node")
        if check.param.check == CHECK_DIR and not system.is_dir(value):
            raise _Refuse(hypervisor, name, value, "there is no such directory on this node")
    if params.get(constants.HV_SECURITY_MODEL) == constants.HT_SM_USER:
        user = params.get(constants.HV_SECURITY_DOMAIN)
        if not (isinstance(user, str) and system.has_user(user)):
            raise _Refuse(
                hypervisor,
                constants.HV_SECURITY_DOMAIN,
                user,
                "there is no such user on this node",
            )


def CheckNoGlobals(
    params: Mapping[str, Any], owner: str = "an instance", what: str | None = None
) -> None:
    """Refuse parameters of the whole cluster among those of something smaller.

    @param owner: whose parameters they are
    @param what: what gave them, to begin the message with
    @raise errors.OpPrereqError: there are some; the text names them
    """
    used = sorted(GLOBALS.intersection(params))
    if used:
        prefix = f"{what}: " if what else ""
        raise errors.OpPrereqError(
            f"{prefix}Hypervisor parameters that only the cluster has: {text.CommaJoin(used)};"
            f" set them for the cluster, not for {owner}",
            errors.ECODE_INVAL,
        )


def GetAncillaryFiles(
    hypervisor: str, params_in_use: Iterable[Mapping[str, Any]] = ()
) -> list[str]:
    """Files that all nodes must have alike for a hypervisor.

    @param params_in_use: filled parameters of the cluster and of every instance of the hypervisor;
      the VNC password files they name are part of the answer
    @return: sorted absolute paths; they need not exist
    """
    files = set(ANCILLARY_FILES.get(hypervisor, ()))
    for params in params_in_use:
        password_file = params.get(constants.HV_VNC_PASSWORD_FILE)
        if password_file:
            files.add(password_file)
    return sorted(files)
