"""Logical units that add, remove and reset nodes."""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, objects, opcodes, pathutils
from ..utils import io, net
from ..utils.rollback import Rollback
from . import ancillary, announce, base, candidates, hooks, node_roles


class LUNodeAdd(base.LogicalUnit):
    """Make a prepared machine a node, or set up a known one again.

    The client has brought the secrets there and started the node daemon already.
    """

    HPATH = "node-add"
    HTYPE = constants.HTYPE_NODE
    REQ_BGL = True

    def CheckArguments(self) -> None:
        self.op.node_name = net.HostInfo.NormalizeName(self.op.node_name)

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {
            "OP_TARGET": self.op.node_name,
            "NODE_NAME": self.op.node_name,
            "NODE_PIP": self.op.primary_ip,
            "NODE_SIP": self.op.secondary_ip,
        }
        nodes = self.cfg.GetNodeList()
        return env, nodes, sorted({*nodes, self.op.node_name})

    def CheckPrereq(self) -> None:
        if self.op.readd:
            # It may be named by its UUID.
            self.op.node_name = self.cfg.ExpandNodeName(self.op.node_name) or self.op.node_name
        host = net.GetHostInfo(self.op.node_name)
        name = self.op.node_name = host.name
        primary_ip = self.op.primary_ip = host.ip
        known = self.cfg.GetNodeInfo(name) if self.op.readd else None
        if self.op.secondary_ip is None:
            self.op.secondary_ip = primary_ip if known is None else known.secondary_ip
        if known is not None and self.op.secondary_ip == known.secondary_ip == known.primary_ip:
            # It has one address only, which may be another one now.
            self.op.secondary_ip = primary_ip
        secondary_ip = self.op.secondary_ip
        if not net.IsValidIP(secondary_ip):
            raise errors.OpPrereqError(
                f"Secondary IP {secondary_ip!r} is no IPv4 address", errors.ECODE_INVAL
            )

        nodes = self.cfg.GetAllNodesInfo()
        if not self.op.readd and name in nodes:
            raise errors.OpPrereqError(
                f"Node {name} is in the cluster already; --readd sets it up again",
                errors.ECODE_EXISTS,
            )
        if self.op.readd and name not in nodes:
            raise errors.OpPrereqError(
                f"Node {name} is not in the cluster; add it without --readd", errors.ECODE_NOENT
            )
        if name == self.cfg.GetMasterNode():
            raise errors.OpPrereqError(
                f"Node {name} is the master, which can not be set up again: make another node the"
                " master first",
                errors.ECODE_INVAL,
            )
        self._CheckAddresses(nodes)
        self._CheckHoming(nodes[self.cfg.GetMasterNode()])
        self._CheckReachable(nodes[self.cfg.GetMasterNode()])

        exceptions = [name] if self.op.readd else []
        self.master_candidate = candidates.DecideSelfPromotion(self, exceptions)
        if self.op.readd:
            self.new_node = nodes[name]
        else:
            self.new_node = objects.Node(
                tags=set(),
                name=name,
                primary_ip=primary_ip,
                secondary_ip=secondary_ip,
                master_candidate=self.master_candidate,
                offline=False,
                drained=False,
            )

    def _CheckAddresses(self, nodes: dict[str, objects.Node]) -> None:
        new = {self.op.primary_ip, self.op.secondary_ip}
        for other in nodes.values():
            if other.name == self.op.node_name:
                moved = (
                    other.secondary_ip == other.primary_ip
                    and self.op.secondary_ip == self.op.primary_ip
                )
                if other.secondary_ip != self.op.secondary_ip and not moved:
                    raise errors.OpPrereqError(
                        f"Node {other.name} has the secondary IP {other.secondary_ip}, which can"
                        f" not be changed to {self.op.secondary_ip} by adding it again",
                        errors.ECODE_INVAL,
                    )
                continue
            taken = new & {other.primary_ip, other.secondary_ip}
            if taken:
                raise errors.OpPrereqError(
                    f"The address {', '.join(sorted(taken))} belongs to node {other.name} already",
                    errors.ECODE_NOTUNIQUE,
                )

    def _CheckHoming(self, master: objects.Node) -> None:
        master_dual = master.secondary_ip != master.primary_ip
        new_dual = self.op.secondary_ip != self.op.primary_ip
        if master_dual and not new_dual:
            raise errors.OpPrereqError(
                f"The master has a secondary IP ({master.secondary_ip}), so every node needs one"
                " (--secondary-ip)",
                errors.ECODE_INVAL,
            )
        if new_dual and not master_dual:
            raise errors.OpPrereqError(
                f"The master has no secondary IP, so node {self.op.node_name} can have none"
                f" ({self.op.secondary_ip} was given)",
                errors.ECODE_INVAL,
            )

    def _CheckReachable(self, master: objects.Node) -> None:
        port = net.GetDaemonPort(constants.NODED)
        self.unchecked.append(
            f"the version of node {self.op.node_name}, that it has its secondary IP, and that the"
            " nodes reach each other"
        )
        if not net.TcpPing(self.op.primary_ip, port):
            if self.op.dry_run:
                # The command that really adds it starts the daemon first.
                self.unchecked.append(
                    f"node {self.op.node_name} at all: there is no node daemon at"
                    f" {self.op.primary_ip}:{port} yet"
                )
                return
            raise errors.OpPrereqError(
                f"Node {self.op.node_name} does not answer at {self.op.primary_ip}:{port}",
                errors.ECODE_ENVIRON,
            )
        if self.op.secondary_ip != self.op.primary_ip and not net.TcpPing(
            self.op.secondary_ip, port, source=master.secondary_ip
        ):
            raise errors.OpPrereqError(
                f"Node {self.op.node_name} does not answer at its secondary IP"
                f" {self.op.secondary_ip}:{port}",
                errors.ECODE_ENVIRON,
            )

    def _SetRole(self, node: objects.Node) -> None:
        """Make a node that was known before what it shall be."""
        node.drained = node.offline = False
        node.master_candidate = self.master_candidate
        node.primary_ip, node.secondary_ip = self.op.primary_ip, self.op.secondary_ip

    def DescribeChanges(self) -> list[announce.Change]:
        node = self.new_node
        cluster = self.cfg.GetClusterInfo()
        master = [self.cfg.GetMasterNode()]
        if self.op.readd:
            new = node.Copy()
            self._SetRole(new)
            lines = announce.Between(node, new) or [
                announce.OfNode(node.name, "set up again as is")
            ]
        else:
            role = "a master candidate" if self.master_candidate else "a regular node"
            addresses = ", ".join(dict.fromkeys([node.primary_ip, node.secondary_ip]))
            lines = [announce.OfNode(node.name, f"added as {role}, with the address {addresses}")]
        what = "first the command sends the cluster's secrets and starts the node daemon"
        lines += announce.OnNodes([node.name], what)
        if cluster.modify_ssh_setup:
            lines += announce.OnNodes([node.name], "install the SSH keys of the cluster")
        if cluster.modify_etc_hosts:
            lines += announce.OnNodes(master, f"enter it in {pathutils.ETC_HOSTS}")
        lines += ancillary.DescribeRedistribution(self, {node.name: node.primary_ip})
        if self.master_candidate:
            what = "keep a copy of configuration and job queue"
        else:
            what = "drop copies of configuration and job queue that it has"
        return lines + announce.OnNodes([node.name], what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        node = self.new_node
        with Rollback(feedback_fn) as undo:
            if self.op.readd:
                undo.Add("give the node its former role", self._Restore, node, node.Copy())
                # First of all: an offline node would not be asked anything below.
                self._SetRole(node)
                self.cfg.Update(node, feedback_fn)
                self.LogInfo("Setting up node %s again", node.name)
            if self.master_candidate:
                self.LogInfo("Node will be a master candidate")
            self._CheckVersion(node)
            if not self.op.readd:
                what = f"let {node.name} forget the cluster"
                undo.Add(what, self._TakeBack, node)
            self._ShipSshKeys(node.name)
            self._CheckSecondaryIp(node)
            self._CheckAccess(node.name, feedback_fn)
            if self.op.readd:
                undo.Commit()
            # Only what has passed all checks is made known to the other nodes.
            self._EnterInHostsFile(node, undo)
            ancillary.RedistributeAncillaryFiles(self, {node.name: node.primary_ip})
            if self.op.readd:
                self.context.ReaddNode(node)
            else:
                self.context.AddNode(node, self.proc.GetECId())
        if not node.master_candidate:
            # A new one may have been a node before, and dead when it was removed.
            node_roles.Demote(self, node.name)

    def _EnterInHostsFile(self, node: objects.Node, undo: Rollback) -> None:
        if not self.cfg.GetClusterInfo().modify_etc_hosts:
            return
        path = pathutils.ETC_HOSTS
        try:
            before = io.ReadFile(path)
            net.SetEtcHostsEntry(path, node.primary_ip, node.name, [node.name.partition(".")[0]])
        except OSError as err:
            if not self.op.readd:
                raise errors.OpExecError(
                    f"{node.name} can not be entered in {path}: {err}"
                ) from err
            self.LogWarning("%s can not be entered in %s: %s", node.name, path, err)
            return
        if not self.op.readd and io.ReadFile(path) != before:
            undo.Add(f"take {node.name} out of {path}", self._LeaveHostsFile, before)

    def _LeaveHostsFile(self, before: str) -> None:
        if not self._IsNode():
            io.WriteFile(pathutils.ETC_HOSTS, data=before, mode=0o644)
            ancillary.RedistributeAncillaryFiles(self, paths=[pathutils.ETC_HOSTS])

    def _IsNode(self) -> bool:
        """Is it in the configuration, whatever went wrong after that?"""
        return self.cfg.GetNodeInfo(self.op.node_name) is not None

    def _TakeBack(self, node: objects.Node) -> None:
        """The cluster's secrets are for its nodes only."""
        if self._IsNode():
            return
        result = self.rpc.call_node_leave_cluster(
            node.name,
            bool(self.cfg.GetClusterInfo().modify_ssh_setup),
            address_list=[node.primary_ip],
        )
        result.Raise(f"Remove {pathutils.DATA_DIR} there by hand and stop its daemons")

    def _Restore(self, node: objects.Node, before: objects.Node) -> None:
        for name in ("drained", "offline", "master_candidate", "primary_ip", "secondary_ip"):
            setattr(node, name, getattr(before, name))
        self.cfg.Update(node)

    def _CheckVersion(self, node: objects.Node) -> None:
        name = node.name
        # Until it is in the configuration, the node is known by its address only.
        result = self.rpc.call_version([name], address_list=[node.primary_ip])[name]
        result.Raise(f"Node {name} can not tell its version")
        if result.payload != constants.PROTOCOL_VERSION:
            raise errors.OpExecError(
                f"Node {name} speaks protocol {result.payload}, the master"
                f" {constants.PROTOCOL_VERSION}: install the same release"
            )

    def _ShipSshKeys(self, name: str) -> None:
        if not self.cfg.GetClusterInfo().modify_ssh_setup:
            return
        from .. import ssh

        private, public, _ = ssh.GetUserFiles(constants.GANETI_RUNAS)
        paths = [
            pathutils.SSH_HOST_DSA_PRIV,
            pathutils.SSH_HOST_DSA_PUB,
            pathutils.SSH_HOST_RSA_PRIV,
            pathutils.SSH_HOST_RSA_PUB,
            private,
            public,
        ]
        files = self.context.runtime.files
        # A kind of key that this host does not have travels as empty text.
        keys = [files.read(path).decode() if files.exists(path) else "" for path in paths]
        self.rpc.call_node_add(name, *keys).Raise(f"Node {name} did not take the SSH keys")

    def _CheckSecondaryIp(self, node: objects.Node) -> None:
        if node.secondary_ip == node.primary_ip:
            return
        result = self.rpc.call_node_has_ip_address(node.name, node.secondary_ip)
        result.Raise(
            f"Node {node.name} can not be asked for its secondary IP",
            prereq=True,
            ecode=errors.ECODE_ENVIRON,
        )
        if not result.payload:
            raise errors.OpExecError(
                f"Node {node.name} does not have the secondary IP {node.secondary_ip}"
            )

    def _CheckAccess(self, name: str, feedback_fn: base.FeedbackFn) -> None:
        master = self.cfg.GetMasterNode()
        checks = {constants.NV_NODELIST: [name]}
        result = self.rpc.call_node_verify([master], checks, self.cfg.GetClusterName())[master]
        result.Raise(f"The master can not check the way to node {name}")
        failures = result.payload.get(constants.NV_NODELIST) or {}
        for node, message in failures.items():
            feedback_fn(f"The way from the master to node {node}: {message}")
        if failures:
            raise errors.OpExecError(f"Node {name} can not be reached as it has to be")


class LUNodeRemove(base.LogicalUnit):
    """Take a node out of the cluster and let it clean itself."""

    HPATH = "node-remove"
    HTYPE = constants.HTYPE_NODE
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.op.node_name, "NODE_NAME": self.op.node_name}
        # Without the node itself: a dead one must be removable.
        nodes = [name for name in self.cfg.GetNodeList() if name != self.op.node_name]
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        name = self.op.node_name = base.ExpandNodeName(self.cfg, self.op.node_name)
        if name == self.cfg.GetMasterNode():
            raise errors.OpPrereqError(
                f"Node {name} is the master: make another node the master first",
                errors.ECODE_INVAL,
            )
        using = [
            instance.name
            for instance in self.cfg.GetAllInstancesInfo().values()
            if name in instance.all_nodes
        ]
        if using:
            raise errors.OpPrereqError(
                f"Node {name} has instances ({', '.join(sorted(using))}): move or remove them"
                " first",
                errors.ECODE_INVAL,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        name = self.op.node_name
        lines = [announce.OfNode(name, "removed")]
        lines += candidates.DescribeAdjustment(self, [name])
        what = (
            f"run the {self.HPATH} post hooks, then stop its daemons and remove the cluster's files"
        )
        lines += announce.OnNodes([name], what)
        if self.cfg.GetClusterInfo().modify_etc_hosts:
            master = [self.cfg.GetMasterNode()]
            lines += announce.OnNodes(master, f"take {name} out of {pathutils.ETC_HOSTS}")
            lines += ancillary.DescribeRedistribution(self, gone=[name])
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        name = self.op.node_name
        cluster = self.cfg.GetClusterInfo()
        candidates.AdjustCandidatePool(self, [name])
        # After this it has no address in the configuration any more.
        node = base.GetNode(self, name)
        self.context.RemoveNode(name)
        hooks.RunPostHooks(self, [name])
        result = self.rpc.call_node_leave_cluster(
            name, bool(cluster.modify_ssh_setup), address_list=[node.primary_ip]
        )
        if result.fail_msg:
            self.LogWarning(
                "Node %s could not clean itself: %s",
                name,
                result.fail_msg,
                hint=f"Remove {pathutils.DATA_DIR} there by hand and stop its daemons",
            )
        if cluster.modify_etc_hosts:
            try:
                # Without asking the resolver: the name may be gone from there already.
                for entry in (name, name.partition(".")[0]):
                    net.RemoveEtcHostsEntry(pathutils.ETC_HOSTS, entry)
            except OSError as err:
                # It is no node any more, so this can not be run again.
                self.LogWarning(
                    "%s can not be taken out of %s: %s",
                    name,
                    pathutils.ETC_HOSTS,
                    err,
                    hint="Do it by hand, then run gnt-cluster redist-conf",
                )
            ancillary.RedistributeAncillaryFiles(self)


class LUNodePowercycle(base.NoHooksLU):
    """Reset a node: the last resort, so it waits for no lock."""

    def CheckArguments(self) -> None:
        self.op.node_name = base.ExpandNodeName(self.cfg, self.op.node_name)
        if self.op.node_name == self.cfg.GetMasterNode() and not self.op.force:
            raise errors.OpPrereqError(
                f"Node {self.op.node_name} is the master; --force resets it all the same",
                errors.ECODE_INVAL,
            )

    def ExpandNames(self) -> None:
        self.needed_locks = {}

    def CheckPrereq(self) -> None:
        """Nothing to check: the node is in trouble."""

    def DescribeChanges(self) -> list[announce.Change]:
        return announce.OnNodes([self.op.node_name], "reset it, a few seconds later")

    def Exec(self, feedback_fn: base.FeedbackFn) -> Any:
        result = self.rpc.call_node_powercycle(self.op.node_name, self.cfg.GetHypervisorType())
        result.Raise(f"Node {self.op.node_name} could not be reset")
        return result.payload


LOGICAL_UNITS: Final = {
    opcodes.OpNodeAdd: LUNodeAdd,
    opcodes.OpNodeRemove: LUNodeRemove,
    opcodes.OpNodePowercycle: LUNodePowercycle,
}
