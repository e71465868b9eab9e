"""Files that shall be the same on all nodes beyond the configuration (Redistribute Config)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import hvparams, objects, pathutils, runtime
from ..utils import io
from . import announce, base

#: Never sent by this way, whatever the administrator's list says: they have one of their own.
_OWN_WAYS = frozenset([pathutils.CLUSTER_CONF_FILE, pathutils.NODED_CERT_FILE])


def GetParamsInUse(
    cluster: objects.Cluster, instances: Iterable[objects.Instance], hypervisor: str
) -> Iterator[Mapping[str, Any]]:
    """All filled parameters of a hypervisor: the cluster's, those of each OS and instance; pure."""
    yield cluster.SimpleFillHV(hypervisor, None, None)
    for os_name, per_hypervisor in (cluster.os_hvp or {}).items():
        if hypervisor in per_hypervisor:
            yield cluster.SimpleFillHV(hypervisor, os_name, None)
    for instance in instances:
        if instance.hypervisor == hypervisor:
            yield cluster.FillHV(instance)


def GetAncillaryFiles(
    cluster: objects.Cluster, instances: Iterable[objects.Instance], rt: runtime.Runtime
) -> list[str]:
    """Paths of the files that shall be on all nodes; those that the master has.

    The administrator's own list, one path a line, is a file that is shipped itself: the first one,
    for nodes take nothing that is not in their copy of it. The VNC password files are all that are
    in use anywhere.
    """
    files = {
        pathutils.SSH_KNOWN_HOSTS_FILE,
        pathutils.RAPI_CERT_FILE,
        pathutils.RAPI_USERS_FILE,
        pathutils.CONFD_HMAC_KEY,
    }
    if cluster.modify_etc_hosts:
        files.add(pathutils.ETC_HOSTS)
    known = list(instances)
    for kind in cluster.enabled_hypervisors:
        files.update(hvparams.GetAncillaryFiles(kind, GetParamsInUse(cluster, known, kind)))
    files.update(ReadAdminList(rt))
    # Paths in parameters and in the list are those of a real node.
    local = {pathutils.LocalPath(path) for path in files}
    local -= {pathutils.ANCILLARY_LIST_FILE, *_OWN_WAYS}
    ordered = [pathutils.ANCILLARY_LIST_FILE, *sorted(local)]
    return [path for path in ordered if rt.files.exists(path)]


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
        if not io.IsNormAbsPath(name):
            problem = "is no absolute, normalized path"
        elif pathutils.LocalPath(name) in _OWN_WAYS:
            problem = "is not sent by this way"
        else:
            paths.append(name)
            continue
        logging.warning("%s: %r %s", pathutils.ANCILLARY_LIST_FILE, name, problem)
    return paths


def _GetTargets(
    lu: base.LogicalUnit, additional_nodes: Mapping[str, str] | None, only: Iterable[str] | None
) -> dict[str, str]:
    """The nodes that files are sent to, and their addresses."""
    addresses = {
        name: node.primary_ip
        for name, node in lu.cfg.GetAllNodesInfo().items()
        if not node.offline and (only is None or name in only)
    }
    addresses.update(additional_nodes or {})
    addresses.pop(lu.cfg.GetMasterNode(), None)
    return addresses


def DescribeRedistribution(
    lu: base.LogicalUnit,
    additional_nodes: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
    paths: Sequence[str] | None = None,
    gone: Iterable[str] = (),
) -> list[announce.Change]:
    """What L{RedistributeAncillaryFiles} would do, for a dry run.

    @param gone: nodes that will have left by then
    """
    targets = _GetTargets(lu, additional_nodes, only).keys() - set(gone)
    if paths is None:
        instances = lu.cfg.GetAllInstancesInfo().values()
        paths = GetAncillaryFiles(lu.cfg.GetClusterInfo(), instances, lu.context.runtime)
    if not paths:
        return []
    names = announce.FormatNames([path.rpartition("/")[2] for path in paths])
    return announce.OnNodes(targets, f"replace the shared files by the master's: {names}")


def RedistributeAncillaryFiles(
    lu: base.LogicalUnit,
    additional_nodes: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
    paths: Sequence[str] | None = None,
) -> None:
    """Send the files to all online nodes and the given ones; what fails is warned of.

    Needs no locks: the files are not part of any object.

    @param additional_nodes: name -> address of nodes that are not in the configuration yet
    @param only: instead of all online nodes, these of them
    @param paths: instead of all files, these
    """
    addresses = _GetTargets(lu, additional_nodes, only)
    if not addresses:
        return
    names = sorted(addresses)
    targets = [addresses[name] for name in names]
    if paths is None:
        instances = lu.cfg.GetAllInstancesInfo().values()
        paths = GetAncillaryFiles(lu.cfg.GetClusterInfo(), instances, lu.context.runtime)
    for path in paths:
        try:
            results = lu.rpc.call_upload_file(names, path, address_list=targets)
        except OSError as err:
            lu.LogWarning("%s can not be read and is not sent to other nodes: %s", path, err)
            continue
        for node, result in results.items():
            if result.fail_msg:
                lu.LogWarning("Copying %s to %s failed: %s", path, node, result.fail_msg)
