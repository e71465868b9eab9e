"""Files that shall be the same on all nodes beyond the configuration (Redistribute Config)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .. import hvparams, objects, pathutils, runtime
from . import base


def GetAncillaryFiles(cluster: objects.Cluster, rt: runtime.Runtime) -> list[str]:
    """Paths of the files that shall be on all nodes, sorted; those that the master has.

    The administrator's own list, one path a line, is a file that is shipped itself.
    """
    files = {
        pathutils.SSH_KNOWN_HOSTS_FILE,
        pathutils.RAPI_CERT_FILE,
        pathutils.RAPI_USERS_FILE,
        pathutils.CONFD_HMAC_KEY,
        pathutils.ANCILLARY_LIST_FILE,
    }
    if cluster.modify_etc_hosts:
        files.add(pathutils.ETC_HOSTS)
    for kind in cluster.enabled_hypervisors:
        files.update(hvparams.GetAncillaryFiles(kind))
    files.update(ReadAdminList(rt))
    return sorted(path for path in files if rt.files.exists(path))


def ReadAdminList(rt: runtime.Runtime) -> list[str]:
    """The absolute paths in the administrator's list; other lines are left out with a warning."""
    try:
        content = rt.files.read(pathutils.ANCILLARY_LIST_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    paths = []
    for line in content.splitlines():
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name.startswith("/"):
            paths.append(name)
        else:
            logging.warning("%s: %r is no absolute path", pathutils.ANCILLARY_LIST_FILE, name)
    return paths


def RedistributeAncillaryFiles(lu: base.LogicalUnit, additional_nodes: Iterable[str] = ()) -> None:
    """Send the files to all online nodes and the given ones; what fails is warned of.

    Needs no locks: the files are not part of any object.

    @param additional_nodes: nodes that are not in the configuration yet
    """
    master = lu.cfg.GetMasterNode()
    targets = {*lu.cfg.GetOnlineNodeList(), *additional_nodes} - {master}
    if not targets:
        return
    for path in GetAncillaryFiles(lu.cfg.GetClusterInfo(), lu.context.runtime):
        for node, result in lu.rpc.call_upload_file(sorted(targets), path).items():
            if result.fail_msg:
                lu.LogWarning("Copying %s to %s failed: %s", path, node, result.fail_msg)
