"""Resources of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import constants, ht, opcodes
from . import baserlib, later, tags
from .baserlib import Arg

#: Keys of a node.
N_FIELDS: Final = (
    "name",
    "offline",
    "master_candidate",
    "drained",
    "dtotal",
    "dfree",
    "mtotal",
    "mnode",
    "mfree",
    "pinst_cnt",
    "sinst_cnt",
    "ctotal",
    "cnodes",
    "csockets",
    "pip",
    "sip",
    "role",
    "pinst_list",
    "sinst_list",
    "ctime",
    "mtime",
    "uuid",
    "serial_no",
    "tags",
)

ROLE_MASTER: Final = "master"
ROLE_CANDIDATE: Final = "master-candidate"
ROLE_DRAINED: Final = "drained"
ROLE_OFFLINE: Final = "offline"
ROLE_REGULAR: Final = "regular"

_ROLE_BY_LETTER: Final[Mapping[str, str]] = {
    "M": ROLE_MASTER,
    "C": ROLE_CANDIDATE,
    "D": ROLE_DRAINED,
    "O": ROLE_OFFLINE,
    "R": ROLE_REGULAR,
}
#: Flags of a node that has the role; None leaves a flag alone.
_ROLE_FLAGS: Final[Mapping[str, Mapping[str, bool | None]]] = {
    ROLE_REGULAR: {"master_candidate": False, "offline": False, "drained": False},
    ROLE_CANDIDATE: {"master_candidate": True, "offline": None, "drained": None},
    ROLE_DRAINED: {"master_candidate": None, "offline": None, "drained": True},
    ROLE_OFFLINE: {"master_candidate": None, "offline": True, "drained": None},
}


class R_2_nodes(baserlib.ResourceBase):  # noqa: N801
    """C{/2/nodes}"""

    def GET(self) -> Any:
        """All nodes."""
        if self.UseBulk():
            rows = self.client.QueryNodes([], N_FIELDS, False)
            return [later.AddNodeKeys(node) for node in baserlib.MapBulkFields(rows, N_FIELDS)]
        names = sorted(row[0] for row in self.client.QueryNodes([], ["name"], False))
        return baserlib.BuildUriList(names, "/2/nodes/%s", ("id", "uri"))


class _NodeResource(baserlib.ResourceBase):
    @property
    def node(self) -> str:
        """Name of the node, as it came."""
        return self.request.items[0]

    def _Query(self, fields: tuple[str, ...]) -> Any:
        rows = self.client.QueryNodes([self.node], fields, self.UseLocking())
        if not rows:
            raise baserlib.NotFound(f"Node '{self.node}' is not known")
        return rows[0]


class R_2_nodes_name(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]}"""

    def GET(self) -> Any:
        """All about a node."""
        return later.AddNodeKeys(baserlib.MapFields(N_FIELDS, self._Query(N_FIELDS)))


class R_2_nodes_name_role(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/role}"""

    def GET(self) -> Any:
        """Role of a node."""
        (letter,) = self._Query(("role",))
        return _ROLE_BY_LETTER.get(letter, letter)

    def PUT(self) -> Any:
        """Give a node another role; job id. Body: the role."""
        role = self.request.body
        if not isinstance(role, str) or role not in _ROLE_FLAGS:
            raise baserlib.BadRequest(
                f"The body must be a role, one of {', '.join(_ROLE_FLAGS)}, not {ht.Show(role)}"
            )
        args = (
            Arg("force", baserlib.ParseFlag),
            Arg("auto-promote", baserlib.ParseFlag, "auto_promote"),
        )
        fixed = {"node_name": self.node, **_ROLE_FLAGS[role]}
        op = self.MakeOp(opcodes.OpNodeSetParams, fixed, args, body={}, defaults={"force": False})
        return self.SubmitJob(op)


class R_2_nodes_name_modify(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/modify}"""

    def POST(self) -> Any:
        """Change parameters of a node; job id."""
        return self.SubmitJob(self.MakeOp(opcodes.OpNodeSetParams, {"node_name": self.node}))


class R_2_nodes_name_powercycle(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/powercycle}"""

    def POST(self) -> Any:
        """Reset a node; job id."""
        args = (Arg("force", baserlib.ParseFlag),)
        fixed = {"node_name": self.node}
        op = self.MakeOp(opcodes.OpNodePowercycle, fixed, args, defaults={"force": False})
        return self.SubmitJob(op)


class R_2_nodes_name_evacuate(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/evacuate}"""

    def POST(self) -> Any:
        """Move secondaries away; job id."""
        args = (
            Arg("remote_node", baserlib.ParseText),
            Arg("iallocator", baserlib.ParseText),
            Arg("early_release", baserlib.ParseFlag),
            Arg("mode", baserlib.ParseText),
        )
        return self.SubmitJob(self.MakeOp(opcodes.OpNodeEvacuate, {"node_name": self.node}, args))


class R_2_nodes_name_migrate(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/migrate}"""

    def POST(self) -> Any:
        """Migrate all primaries away; job id. The job's result names a job for each of them."""
        args = (
            Arg("live", baserlib.ParseFlag),
            Arg("mode", baserlib.ParseText),
            Arg("target_node", baserlib.ParseText),
            Arg("iallocator", baserlib.ParseText),
        )
        fixed = {"node_name": self.node}
        op = self.MakeOp(opcodes.OpNodeMigrate, fixed, args, defaults={"live": True})
        return self.SubmitJob(op)


class R_2_nodes_name_storage(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/storage}"""

    # It makes a job that asks the node.
    GET_ACCESS = (baserlib.ACCESS_WRITE,)

    def GET(self) -> Any:
        """Have the storage units listed; job id."""
        fixed = {
            "nodes": [self.node],
            "storage_type": self.GetRequiredArg("storage_type"),
            "output_fields": self.GetRequiredArg("output_fields").split(","),
        }
        return self.SubmitJob(self.MakeOp(opcodes.OpNodeQueryStorage, fixed))


class R_2_nodes_name_storage_modify(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/storage/modify}"""

    def PUT(self) -> Any:
        """Change a storage unit; job id."""
        changes = {}
        if self.GetArg(constants.SF_ALLOCATABLE) is not None:
            changes[constants.SF_ALLOCATABLE] = self.GetFlag(constants.SF_ALLOCATABLE)
        fixed = {
            "node_name": self.node,
            "storage_type": self.GetRequiredArg("storage_type"),
            "name": self.GetRequiredArg("name"),
            "changes": changes,
        }
        return self.SubmitJob(self.MakeOp(opcodes.OpNodeModifyStorage, fixed))


class R_2_nodes_name_storage_repair(_NodeResource):  # noqa: N801
    """C{/2/nodes/[node]/storage/repair}"""

    def PUT(self) -> Any:
        """Repair a storage unit; job id."""
        fixed = {
            "node_name": self.node,
            "storage_type": self.GetRequiredArg("storage_type"),
            "name": self.GetRequiredArg("name"),
        }
        args = (Arg("ignore_consistency", baserlib.ParseFlag),)
        return self.SubmitJob(self.MakeOp(opcodes.OpRepairNodeStorage, fixed, args))


class R_2_nodes_name_tags(tags.TagsResource):  # noqa: N801
    """C{/2/nodes/[node]/tags}"""

    TAG_KIND = constants.TAG_NODE
