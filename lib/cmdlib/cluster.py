"""Logical units on the cluster as a whole: init, destroy, rename, redistribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .. import constants, errors, locking, objects, opcodes, pathutils, ssh
from ..utils import io, net
from . import ancillary, announce, base, hooks

#: How often a change of the cluster's object is tried while others change it, too.
_UPDATE_ATTEMPTS: Final = 10


def UpdateCluster(
    lu: base.LogicalUnit,
    change: Callable[[objects.Cluster], None],
    feedback_fn: base.FeedbackFn,
) -> None:
    """Change the object of the cluster, which no lock protects.

    Who comes second starts again from what there is then.

    @param change: makes the change in the object it is given; may be called several times
    """
    for attempt in range(1, _UPDATE_ATTEMPTS + 1):
        cluster = lu.cfg.GetClusterInfo()
        change(cluster)
        try:
            lu.cfg.Update(cluster, feedback_fn)
            return
        except errors.ConfigurationError:
            unchanged = lu.cfg.GetClusterInfo().serial_no == cluster.serial_no
            if unchanged or attempt == _UPDATE_ATTEMPTS:
                # It is not that: the configuration can not be written.
                raise


class LUClusterPostInit(base.LogicalUnit):
    """Runs the post hooks of cluster init, nothing else."""

    HPATH = "cluster-init"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName()}
        return env, [], [self.cfg.GetMasterNode()]

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def DescribeChanges(self) -> list[announce.Change]:
        """Nothing: its hooks are all there is."""
        return []

    def Exec(self, feedback_fn: base.FeedbackFn) -> bool:
        return True


class LUClusterDestroy(base.LogicalUnit):
    """Give up the master role; the client removes the rest when this job has ended."""

    HPATH = "cluster-destroy"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        # Run by Exec, before there is nobody to run them any more.
        return {"OP_TARGET": self.cfg.GetClusterName()}, [], []

    def CheckPrereq(self) -> None:
        master = self.cfg.GetMasterNode()
        others = sorted(set(self.cfg.GetNodeList()) - {master})
        if others:
            raise errors.OpPrereqError(
                f"There are {len(others)} more nodes in the cluster ({', '.join(others)}): remove"
                " them first",
                errors.ECODE_INVAL,
            )
        instances = self.cfg.GetInstanceList()
        if instances:
            raise errors.OpPrereqError(
                f"There are {len(instances)} instances in the cluster"
                f" ({', '.join(sorted(instances))}): remove them first",
                errors.ECODE_INVAL,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        master = [self.cfg.GetMasterNode()]
        lines = announce.OnNodes(master, f"run the {self.HPATH} post hooks, at the beginning")
        lines += announce.OnNodes(master, "give up the master role and its address")
        if self.cfg.GetClusterInfo().modify_ssh_setup:
            lines += announce.OnNodes(master, "keep a copy of root's SSH key")
        what = "then the command stops the daemons and removes everything of the cluster"
        return lines + announce.OnNodes(master, what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> str:
        master = self.cfg.GetMasterNode()
        hooks.RunPostHooks(self, [master])
        self.rpc.call_node_stop_master(master, False).Raise("Could not give up the master role")
        if self.cfg.GetClusterInfo().modify_ssh_setup:
            private, public, _ = ssh.GetUserFiles(constants.GANETI_RUNAS)
            for path in (private, public):
                self._BackUp(path)
        return master

    def _BackUp(self, path: str) -> None:
        if not self.context.runtime.files.exists(path):
            return
        try:
            io.CreateBackup(path)
        except OSError as err:
            # The master role is given up: there is no way back, and the key itself stays.
            self.LogWarning("No backup of %s was made: %s", path, err)


class LUClusterRedistConf(base.NoHooksLU):
    """Send configuration, ssconf and ancillary files to all nodes again (RC1)."""

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}
        self.share_locks[locking.LEVEL_NODE] = 1

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def DescribeChanges(self) -> list[announce.Change]:
        return [
            announce.OfCluster("sent to all nodes again, with a new serial number"),
            *ancillary.DescribeRedistribution(self),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        UpdateCluster(self, lambda _: None, feedback_fn)
        ancillary.RedistributeAncillaryFiles(self)


class LUClusterRename(base.LogicalUnit):
    """Give the cluster another name and the address that this name has."""

    HPATH = "cluster-rename"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName(), "NEW_NAME": self.op.name}
        return env, [self.cfg.GetMasterNode()], self.cfg.GetNodeList()

    def CheckPrereq(self) -> None:
        host = net.GetHostInfo(self.op.name)
        self.op.name, self.ip = host.name, host.ip
        old_ip = self.cfg.GetMasterIP()
        if (host.name, host.ip) == (self.cfg.GetClusterName(), old_ip):
            raise errors.OpPrereqError(
                f"name: the cluster is called {host.name}, with the address {host.ip}, already",
                errors.ECODE_INVAL,
            )
        if net.IsLoopback(host.ip) and not pathutils.IsVirtual():
            raise errors.OpPrereqError(
                f"name: {host.name} has the address {host.ip} here, which is not reachable from"
                " other machines; correct /etc/hosts or the DNS",
                errors.ECODE_ENVIRON,
            )
        for node in self.cfg.GetAllNodesInfo().values():
            if host.ip in (node.primary_ip, node.secondary_ip):
                raise errors.OpPrereqError(
                    f"name: {host.ip} of {host.name} is an address of node {node.name}",
                    errors.ECODE_NOTUNIQUE,
                )
        if host.ip != old_ip and net.TcpPing(
            host.ip, constants.DEFAULT_NODED_PORT, live_port_needed=pathutils.IsVirtual()
        ):
            raise errors.OpPrereqError(
                f"name: the address {host.ip} of {host.name} answers, so it is in use",
                errors.ECODE_NOTUNIQUE,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        cluster = self.cfg.GetClusterInfo()
        new = cluster.Copy()
        self._Change(new)
        lines = announce.Between(cluster, new)
        what = f"take down the master's address {cluster.master_ip}, bring up {self.ip}"
        lines += announce.OnNodes([cluster.master_node], what)
        if self.cfg.GetHostKey():
            known_hosts = pathutils.SSH_KNOWN_HOSTS_FILE
            lines += announce.OnNodes(
                [cluster.master_node], f"write {known_hosts} with the new name"
            )
            lines += ancillary.DescribeRedistribution(self, paths=[known_hosts])
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        master = self.cfg.GetMasterNode()
        try:
            result = self.rpc.call_node_stop_master(master, False)
            result.Raise("Could not take down the master's address")
            UpdateCluster(self, self._Change, feedback_fn)
            self._RewriteKnownHosts()
        finally:
            # With the old address or the new one: the cluster must be reachable.
            result = self.rpc.call_node_start_master(master, False, False)
            if result.fail_msg:
                self.LogWarning(
                    "The master's address could not be brought up on %s: %s",
                    master,
                    result.fail_msg,
                    hint="Restart the master daemon on it, which brings the address up",
                )

    def _Change(self, cluster: objects.Cluster) -> None:
        cluster.cluster_name = self.op.name
        cluster.master_ip = self.ip

    def _RewriteKnownHosts(self) -> None:
        """The name in the file is what all connections between nodes ask for."""
        if not self.cfg.GetHostKey():
            return
        path = pathutils.SSH_KNOWN_HOSTS_FILE
        try:
            ssh.WriteKnownHostsFile(self.cfg, path, self.context.runtime)
        except OSError as err:
            self.LogWarning("%s could not be written: %s", path, err)
            return
        ancillary.RedistributeAncillaryFiles(self, paths=[path])


LOGICAL_UNITS: Final = {
    opcodes.OpClusterPostInit: LUClusterPostInit,
    opcodes.OpClusterDestroy: LUClusterDestroy,
    opcodes.OpClusterRedistConf: LUClusterRedistConf,
    opcodes.OpClusterRename: LUClusterRename,
}
