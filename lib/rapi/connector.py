"""Which resource a path belongs to.

L{GetHandlers} is the one table of the API's resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib import parse

from . import baserlib, rlib2

#: Names of nodes and instances, and UUIDs; ids of jobs.
NAME_PATTERN: Final = r"[\w\._-]+"
JOB_ID_PATTERN: Final = r"\d+"

#: Arguments of a query string; more are an attempt at something.
_MAX_ARGS: Final = 1000

Handler = type[baserlib.ResourceBase]
Handlers = Mapping[str | re.Pattern[str], Handler]


def GetHandlers(node_pattern: str, instance_pattern: str, job_pattern: str) -> Handlers:
    """All resources by their path, or a pattern for it.

    @param node_pattern, instance_pattern, job_pattern: regular expressions of one name; the group
        around it is made here, unless there is one
    """
    node, instance, job = (
        pattern if pattern.startswith("(") else f"({pattern})"
        for pattern in (node_pattern, instance_pattern, job_pattern)
    )
    word = r"([\w-]+)"
    table: dict[str | re.Pattern[str], Handler] = {
        "/": rlib2.R_root,
        "/version": rlib2.R_version,
        "/2": rlib2.R_2,
        "/2/features": rlib2.R_2_features,
        "/2/info": rlib2.R_2_info,
        "/2/os": rlib2.R_2_os,
        "/2/redistribute-config": rlib2.R_2_redist_config,
        "/2/modify": rlib2.R_2_cluster_modify,
        "/2/tags": rlib2.R_2_tags,
        "/2/jobs": rlib2.R_2_jobs,
        "/2/nodes": rlib2.R_2_nodes,
        "/2/instances": rlib2.R_2_instances,
        "/2/groups": rlib2.R_2_groups,
        "/2/networks": rlib2.R_2_none,
        "/2/filters": rlib2.R_2_none,
    }
    patterns: dict[str, Handler] = {
        f"/2/jobs/{job}": rlib2.R_2_jobs_id,
        f"/2/jobs/{job}/wait": rlib2.R_2_jobs_id_wait,
        f"/2/nodes/{node}": rlib2.R_2_nodes_name,
        f"/2/nodes/{node}/role": rlib2.R_2_nodes_name_role,
        f"/2/nodes/{node}/modify": rlib2.R_2_nodes_name_modify,
        f"/2/nodes/{node}/powercycle": rlib2.R_2_nodes_name_powercycle,
        f"/2/nodes/{node}/evacuate": rlib2.R_2_nodes_name_evacuate,
        f"/2/nodes/{node}/migrate": rlib2.R_2_nodes_name_migrate,
        f"/2/nodes/{node}/storage": rlib2.R_2_nodes_name_storage,
        f"/2/nodes/{node}/storage/modify": rlib2.R_2_nodes_name_storage_modify,
        f"/2/nodes/{node}/storage/repair": rlib2.R_2_nodes_name_storage_repair,
        f"/2/nodes/{node}/tags": rlib2.R_2_nodes_name_tags,
        f"/2/instances/{instance}": rlib2.R_2_instances_name,
        f"/2/instances/{instance}/info": rlib2.R_2_instances_name_info,
        f"/2/instances/{instance}/reboot": rlib2.R_2_instances_name_reboot,
        f"/2/instances/{instance}/startup": rlib2.R_2_instances_name_startup,
        f"/2/instances/{instance}/shutdown": rlib2.R_2_instances_name_shutdown,
        f"/2/instances/{instance}/reinstall": rlib2.R_2_instances_name_reinstall,
        f"/2/instances/{instance}/replace-disks": rlib2.R_2_instances_name_replace_disks,
        f"/2/instances/{instance}/activate-disks": rlib2.R_2_instances_name_activate_disks,
        f"/2/instances/{instance}/deactivate-disks": rlib2.R_2_instances_name_deactivate_disks,
        f"/2/instances/{instance}/recreate-disks": rlib2.R_2_instances_name_recreate_disks,
        rf"/2/instances/{instance}/disk/(\d+)/grow": rlib2.R_2_instances_name_disk_grow,
        f"/2/instances/{instance}/modify": rlib2.R_2_instances_name_modify,
        f"/2/instances/{instance}/rename": rlib2.R_2_instances_name_rename,
        f"/2/instances/{instance}/migrate": rlib2.R_2_instances_name_migrate,
        f"/2/instances/{instance}/failover": rlib2.R_2_instances_name_failover,
        f"/2/instances/{instance}/export": rlib2.R_2_instances_name_export,
        f"/2/instances/{instance}/console": rlib2.R_2_instances_name_console,
        f"/2/instances/{instance}/tags": rlib2.R_2_instances_name_tags,
        f"/2/groups/{node}": rlib2.R_2_groups_name,
        f"/2/groups/{node}/tags": rlib2.R_2_groups_name_tags,
        f"/2/query/{word}": rlib2.R_2_query,
        f"/2/query/{word}/fields": rlib2.R_2_query_fields,
    }
    for pattern, handler in patterns.items():
        table[re.compile(f"^{pattern}$", re.ASCII)] = handler
    return table


def ParseTarget(target: str) -> tuple[str, dict[str, list[str]]]:
    """Path and query arguments of a request's target.

    The path is taken as it is. Arguments without a value are dropped.

    @raise HttpError: 400, the query string can't be read
    """
    if not target.startswith("/"):
        # The absolute form, as for proxies
        parts = parse.urlsplit(target)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
    path, _, query = target.partition("?")
    try:
        args = parse.parse_qs(query.replace(";", "&"), max_num_fields=_MAX_ARGS)
    except ValueError as err:
        raise baserlib.BadRequest(f"The query string can't be read: {err}") from None
    return path, args


class Mapper:
    """Finds the resource of a path."""

    def __init__(self, handlers: Handlers | None = None) -> None:
        """Take the usual resources, or these."""
        if handlers is None:
            handlers = GetHandlers(NAME_PATTERN, NAME_PATTERN, JOB_ID_PATTERN)
        self._paths = {key: value for key, value in handlers.items() if isinstance(key, str)}
        self._patterns = [
            (key, value) for key, value in handlers.items() if not isinstance(key, str)
        ]

    def Find(self, path: str) -> tuple[Handler, tuple[str, ...]]:
        """The resource at a path, and the variable parts of the path.

        @raise HttpError: 404
        """
        handler = self._paths.get(path)
        if handler is not None:
            return handler, ()
        for pattern, handler in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return handler, match.groups()
        raise baserlib.NotFound()

    def GetController(self, uri: str) -> tuple[Handler, tuple[str, ...], dict[str, list[str]]]:
        """Resource, variable parts of the path, and query arguments of a URI.

        @raise HttpError: 404, 400
        """
        path, args = ParseTarget(uri)
        return (*self.Find(path), args)
