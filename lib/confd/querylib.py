"""The questions confd answers: one class each, and the table of them.

A query takes the value of the request and returns a status and an answer. It sees the configuration
through L{ssconf.SimpleConfigReader} only, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

from .. import constants, ssconf


class Result(NamedTuple):
    """Status and answer, the two parts of a reply that depend on the question."""

    status: int
    answer: Any


def _Ok(answer: Any) -> Result:
    return Result(constants.CONFD_REPL_STATUS_OK, answer)


def _Error(answer: Any) -> Result:
    return Result(constants.CONFD_REPL_STATUS_ERROR, answer)


_UNKNOWN: Final = _Error(constants.CONFD_ERROR_UNKNOWN_ENTRY)
_INTERNAL: Final = _Error(constants.CONFD_ERROR_INTERNAL)
_BAD_ARGUMENT: Final = _Error(constants.CONFD_ERROR_ARGUMENT)


class ConfdQuery:
    """Root of all queries.

    @param reader: the configuration to answer from
    """

    def __init__(self, reader: ssconf.SimpleConfigReader) -> None:
        self.reader = reader

    def Exec(self, query: Any) -> Result:
        """Answer a request.

        @param query: value of the request's C{query}; None if it has none
        """
        raise NotImplementedError


class _NoArgumentQuery(ConfdQuery):
    """A question that needs no value, and so accepts none."""

    NAME: ClassVar[str]

    def Exec(self, query: Any) -> Result:
        if query is not None:
            return _Error(f"The {self.NAME} query takes no argument")
        return _Ok(self._Answer())

    def _Answer(self) -> Any:
        raise NotImplementedError


class PingQuery(_NoArgumentQuery):
    """Is anybody there?"""

    NAME = "ping"

    def _Answer(self) -> str:
        return "ok"


class NodesPipsQuery(_NoArgumentQuery):
    """Primary IPs of all nodes."""

    NAME = "node primary IPs"

    def _Answer(self) -> list[str]:
        return self.reader.GetNodesPrimaryIps()


class MasterCandidatesPipsQuery(_NoArgumentQuery):
    """Primary IPs of the master candidates, master included."""

    NAME = "master candidate primary IPs"

    def _Answer(self) -> list[str]:
        return self.reader.GetMasterCandidatesPrimaryIps()


class NodeRoleQuery(ConfdQuery):
    """Role of a node, by its full name."""

    def Exec(self, query: Any) -> Result:
        if query is None:
            return _UNKNOWN
        if not isinstance(query, str):
            return _BAD_ARGUMENT
        flags = self.reader.GetNodeStatusFlags(query)
        if flags is None:
            return _UNKNOWN
        return _Ok(NodeRole(query == self.reader.GetMasterNode(), *flags))


def NodeRole(master: bool, candidate: bool, drained: bool, offline: bool) -> int:
    """One C{CONFD_NODE_ROLE_*} for a node's flags, in the order in which they count."""
    if master:
        return constants.CONFD_NODE_ROLE_MASTER
    if candidate:
        return constants.CONFD_NODE_ROLE_CANDIDATE
    if drained:
        return constants.CONFD_NODE_ROLE_DRAINED
    if offline:
        return constants.CONFD_NODE_ROLE_OFFLINE
    return constants.CONFD_NODE_ROLE_REGULAR


class ClusterMasterQuery(ConfdQuery):
    """Name of the master node, or a list of facts about it."""

    def Exec(self, query: Any) -> Result:
        if isinstance(query, Mapping):
            fields = query.get(constants.CONFD_REQQ_FIELDS)
            if not isinstance(fields, list):
                return _BAD_ARGUMENT
            return _Ok([self._Field(field) for field in fields])
        if query:
            return _BAD_ARGUMENT
        return _Ok(self.reader.GetMasterNode())

    def _Field(self, field: Any) -> Any:
        # Clients of later versions send integers. An unknown field is null, so that each answer
        # stays in the place where it was asked.
        if isinstance(field, int) and not isinstance(field, bool):
            field = str(field)
        if field == constants.CONFD_REQFIELD_NAME:
            return self.reader.GetMasterNode()
        if field == constants.CONFD_REQFIELD_IP:
            return self.reader.GetMasterIP()
        if field == constants.CONFD_REQFIELD_MNODE_PIP:
            return self.reader.GetNodePrimaryIp(self.reader.GetMasterNode())
        return None


class InstancesIpsQuery(ConfdQuery):
    """Addresses of the NICs on a link."""

    def Exec(self, query: Any) -> Result:
        if query is not None and not isinstance(query, str):
            return _BAD_ARGUMENT
        return _Ok(self.reader.GetInstancesIps(query))


class InstanceIpToNodePrimaryIpQuery(ConfdQuery):
    """Primary IP of the node that runs the instance with an address; one or many at once."""

    def Exec(self, query: Any) -> Result:
        if isinstance(query, str):
            # The form of the first 2.1 betas.
            query = {constants.CONFD_REQQ_IP: query}
        if not isinstance(query, Mapping):
            return _BAD_ARGUMENT
        link = query.get(constants.CONFD_REQQ_LINK)
        if link is not None and not isinstance(link, str):
            return _BAD_ARGUMENT
        if constants.CONFD_REQQ_IP in query:
            ip = query[constants.CONFD_REQQ_IP]
            return self._Lookup(ip, link) if isinstance(ip, str) else _BAD_ARGUMENT
        ips = query.get(constants.CONFD_REQQ_IPLIST)
        if not (isinstance(ips, list) and all(isinstance(ip, str) for ip in ips)):
            return _BAD_ARGUMENT
        return _Ok([list(self._Lookup(ip, link)) for ip in ips])

    def _Lookup(self, ip: str, link: str | None) -> Result:
        instance = self.reader.GetInstanceByLinkIp(ip, link)
        if instance is None:
            return _UNKNOWN
        node = self.reader.GetInstancePrimaryNode(instance)
        node_ip = self.reader.GetNodePrimaryIp(node) if node else None
        return _Ok(node_ip) if node_ip else _INTERNAL


#: Request type -> the class that answers it.
QUERIES: Final[Mapping[int, type[ConfdQuery]]] = {
    constants.CONFD_REQ_PING: PingQuery,
    constants.CONFD_REQ_NODE_ROLE_BYNAME: NodeRoleQuery,
    constants.CONFD_REQ_NODE_PIP_BY_INSTANCE_IP: InstanceIpToNodePrimaryIpQuery,
    constants.CONFD_REQ_CLUSTER_MASTER: ClusterMasterQuery,
    constants.CONFD_REQ_NODE_PIP_LIST: NodesPipsQuery,
    constants.CONFD_REQ_MC_PIP_LIST: MasterCandidatesPipsQuery,
    constants.CONFD_REQ_INSTANCES_IPS_LIST: InstancesIpsQuery,
}
