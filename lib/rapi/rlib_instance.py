"""Resources of instances."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from .. import constants, ht, opcodes
from . import baserlib, create, later, tags
from .baserlib import Arg

#: Keys of an instance.
I_FIELDS: Final = (
    "name",
    "admin_state",
    "os",
    "pnode",
    "snodes",
    "disk_template",
    "nic.ips",
    "nic.macs",
    "nic.modes",
    "nic.links",
    "nic.bridges",
    "network_port",
    "disk.sizes",
    "disk_usage",
    "beparams",
    "hvparams",
    "oper_state",
    "oper_ram",
    "status",
    "ctime",
    "mtime",
    "uuid",
    "serial_no",
    "tags",
)

_SHUTDOWN_TIMEOUT: Final = Arg("shutdown_timeout", baserlib.ParseInt)


class R_2_instances(baserlib.ResourceBase):  # noqa: N801
    """C{/2/instances}"""

    def GET(self) -> Any:
        """All instances."""
        locking = self.UseLocking()
        if self.UseBulk():
            rows = self.client.QueryInstances([], I_FIELDS, locking)
            found = baserlib.MapBulkFields(rows, I_FIELDS)
            return [later.AddInstanceKeys(instance) for instance in found]
        names = sorted(row[0] for row in self.client.QueryInstances([], ["name"], locking))
        return baserlib.BuildUriList(names, "/2/instances/%s", ("id", "uri"))

    def POST(self) -> Any:
        """Create an instance; job id."""
        params = create.ParseCreateBody(self.request.body)
        return self.SubmitJob(self.MakeOp(opcodes.OpInstanceCreate, {}, body=params))


class _InstanceResource(baserlib.ResourceBase):
    @property
    def instance(self) -> str:
        """Name of the instance, as it came."""
        return self.request.items[0]

    def SubmitOp(
        self,
        cls: type[opcodes.OpCode],
        *args: Arg,
        **defaults: Any,
    ) -> Any:
        """Submit an opcode on this instance with parameters from query string and body; job id."""
        fixed = {"instance_name": self.instance}
        return self.SubmitJob(self.MakeOp(cls, fixed, args, defaults=defaults))


class R_2_instances_name(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]}"""

    def GET(self) -> Any:
        """All about an instance."""
        rows = self.client.QueryInstances([self.instance], I_FIELDS, self.UseLocking())
        if not rows:
            raise baserlib.NotFound(f"Instance '{self.instance}' is not known")
        return later.AddInstanceKeys(baserlib.MapFields(I_FIELDS, rows[0]))

    def DELETE(self) -> Any:
        """Remove an instance; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceRemove,
            Arg("ignore_failures", baserlib.ParseFlag),
            _SHUTDOWN_TIMEOUT,
            ignore_failures=False,
        )


class R_2_instances_name_info(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/info}"""

    def GET(self) -> Any:
        """Have everything found out about an instance; job id."""
        fixed = {"instances": [self.instance], "static": self.GetFlag("static")}
        op = self.MakeOp(opcodes.OpInstanceQueryData, fixed)
        self.LimitAnonymous()
        return self.SubmitJob(op)


class R_2_instances_name_reboot(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/reboot}"""

    def POST(self) -> Any:
        """Reboot an instance; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceReboot,
            Arg("type", baserlib.ParseText, "reboot_type"),
            Arg("ignore_secondaries", baserlib.ParseFlag),
            _SHUTDOWN_TIMEOUT,
            reboot_type=constants.INSTANCE_REBOOT_HARD,
            ignore_secondaries=False,
        )


class R_2_instances_name_startup(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/startup}"""

    def PUT(self) -> Any:
        """Start an instance; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceStartup,
            Arg("force", baserlib.ParseFlag),
            Arg("no_remember", baserlib.ParseFlag),
            force=False,
        )


class R_2_instances_name_shutdown(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/shutdown}"""

    def PUT(self) -> Any:
        """Shut an instance down; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceShutdown,
            Arg("timeout", baserlib.ParseInt),
            Arg("no_remember", baserlib.ParseFlag),
        )


class R_2_instances_name_reinstall(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/reinstall}"""

    def POST(self) -> Any:
        """Shut an instance down, install it again, start it; id of the one job that does it all."""
        self.RefuseDryRun("a running instance can't be reinstalled, and a dry run stops nothing")
        body = dict(self.GetBodyObject())
        start = body.pop("start", True)
        if not isinstance(start, bool):
            raise baserlib.BadRequest(f"Field 'start' must be boolean: {ht.Show(start)} is not")
        if "os" in body:
            body["os_type"] = body.pop("os")
        if self.GetFlag("nostartup"):
            start = False
        fixed = {"instance_name": self.instance}
        args = (Arg("os", baserlib.ParseText, "os_type"),)
        ops = [
            self.MakeOp(opcodes.OpInstanceShutdown, fixed, body={}),
            self.MakeOp(opcodes.OpInstanceReinstall, fixed, args, body),
        ]
        if start:
            ops.append(self.MakeOp(opcodes.OpInstanceStartup, {**fixed, "force": False}, body={}))
        return self.SubmitJob(*ops)


class R_2_instances_name_replace_disks(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/replace-disks}"""

    def POST(self) -> Any:
        """Replace disks; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceReplaceDisks,
            Arg("mode", baserlib.ParseText),
            Arg("disks", baserlib.ParseIntList),
            Arg("remote_node", baserlib.ParseText),
            Arg("iallocator", baserlib.ParseText),
            Arg("early_release", baserlib.ParseFlag),
            disks=[],
        )


class R_2_instances_name_activate_disks(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/activate-disks}"""

    def PUT(self) -> Any:
        """Make the disks accessible; job id."""
        return self.SubmitOp(
            opcodes.OpInstanceActivateDisks, Arg("ignore_size", baserlib.ParseFlag)
        )


class R_2_instances_name_deactivate_disks(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/deactivate-disks}"""

    def PUT(self) -> Any:
        """Shut the disks down; job id."""
        return self.SubmitOp(opcodes.OpInstanceDeactivateDisks, Arg("force", baserlib.ParseFlag))


class R_2_instances_name_recreate_disks(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/recreate-disks}"""

    def POST(self) -> Any:
        """Make lost disks again; job id."""
        return self.SubmitOp(opcodes.OpInstanceRecreateDisks, disks=[])


class R_2_instances_name_disk_grow(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/disk/[index]/grow}"""

    def POST(self) -> Any:
        """Make a disk bigger; job id."""
        fixed = {"instance_name": self.instance, "disk": int(self.request.items[1])}
        op = self.MakeOp(opcodes.OpInstanceGrowDisk, fixed, defaults={"wait_for_sync": True})
        return self.SubmitJob(op)


class R_2_instances_name_modify(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/modify}"""

    def PUT(self) -> Any:
        """Change an instance; job id."""
        return self.SubmitOp(opcodes.OpInstanceSetParams)


class R_2_instances_name_rename(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/rename}"""

    def PUT(self) -> Any:
        """Give an instance another name; job id."""
        return self.SubmitOp(opcodes.OpInstanceRename)


class R_2_instances_name_migrate(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/migrate}"""

    def PUT(self) -> Any:
        """Move a running instance to its secondary node, or to another one; job id."""
        return self.SubmitOp(opcodes.OpInstanceMigrate, live=True, cleanup=False)


class R_2_instances_name_failover(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/failover}"""

    def PUT(self) -> Any:
        """Stop an instance and start it on its secondary, or another node; job id."""
        return self.SubmitOp(opcodes.OpInstanceFailover, ignore_consistency=False)


class R_2_instances_name_export(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/export}"""

    def PUT(self) -> Any:
        """Export an instance; job id."""
        body = dict(self.GetBodyObject())
        if "destination" in body:
            body["target_node"] = body.pop("destination")
        fixed = {"instance_name": self.instance}
        op = self.MakeOp(opcodes.OpBackupExport, fixed, body=body, defaults={"shutdown": True})
        return self.SubmitJob(op)


class R_2_instances_name_console(_InstanceResource):  # noqa: N801
    """C{/2/instances/[instance]/console}"""

    # It says how to get at the inside of a guest.
    GET_ACCESS = (baserlib.ACCESS_WRITE, baserlib.ACCESS_READ)

    def GET(self) -> Any:
        """How to reach the console."""
        ((name, node, state),) = self.client.QueryInstances(
            [self.instance], ["name", "pnode", "oper_state"], False
        )
        if not state:
            raise baserlib.HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"Instance {name} is not running"
            )
        command = self.RunJob(opcodes.OpInstanceConsole(instance_name=name))
        return later.MakeConsole(name, node, command)


class R_2_instances_name_tags(tags.TagsResource):  # noqa: N801
    """C{/2/instances/[instance]/tags}"""

    TAG_KIND = constants.TAG_INSTANCE
