"""Resources of the cluster as a whole."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from .. import constants, opcodes
from . import baserlib, later, tags

#: What this server can do beyond the first version of the API; clients ask before they send.
FEATURES: Final = ["instance-create-reqv1", "node-evac-res1", "node-migrate-reqv1"]

#: What lies below C{/2}.
_TOPLEVEL: Final = ("features", "info", "instances", "jobs", "nodes", "os", "tags")


class R_version(baserlib.ResourceBase):  # noqa: N801 - all resources are called like this
    """C{/version}"""

    def GET(self) -> Any:
        """The version of the API."""
        return constants.RAPI_VERSION


class R_root(baserlib.ResourceBase):  # noqa: N801
    """C{/}"""

    def GET(self) -> Any:
        """What there is."""
        return [{"name": "2", "uri": "/2"}, {"name": "version", "uri": "/version"}]


class R_2(baserlib.ResourceBase):  # noqa: N801
    """C{/2}"""

    def GET(self) -> Any:
        """What there is."""
        return baserlib.BuildUriList(_TOPLEVEL, "/2/%s", ("name", "uri"))


class R_2_features(baserlib.ResourceBase):  # noqa: N801
    """C{/2/features}"""

    def GET(self) -> Any:
        """Optional features."""
        return list(FEATURES)


class R_2_info(baserlib.ResourceBase):  # noqa: N801
    """C{/2/info}"""

    def GET(self) -> Any:
        """Parameters of the cluster."""
        return later.AddClusterKeys(self.client.QueryClusterInfo())


class R_2_os(baserlib.ResourceBase):  # noqa: N801
    """C{/2/os}"""

    def GET(self) -> Any:
        """Operating systems that are valid on all nodes."""
        self.LimitAnonymous()
        op = opcodes.OpOsDiagnose(output_fields=["name", "valid", "variants"], names=[])
        rows = self.RunJob(op)
        if not isinstance(rows, list):
            raise baserlib.HttpError(
                HTTPStatus.BAD_GATEWAY, "The master daemon answered no list of OSes"
            )
        return [
            os_name
            for name, valid, variants in rows
            if valid
            for os_name in GetOsNames(name, variants)
        ]


def GetOsNames(name: str, variants: list[str] | None) -> list[str]:
    """The names under which an OS can be installed."""
    return [f"{name}+{variant}" for variant in variants] if variants else [name]


class R_2_redist_config(baserlib.ResourceBase):  # noqa: N801
    """C{/2/redistribute-config}"""

    def PUT(self) -> Any:
        """Send the configuration to all nodes again; job id."""
        return self.SubmitJob(self.MakeOp(opcodes.OpClusterRedistConf, {}))


class R_2_cluster_modify(baserlib.ResourceBase):  # noqa: N801
    """C{/2/modify}"""

    def PUT(self) -> Any:
        """Change parameters of the cluster; job id."""
        return self.SubmitJob(self.MakeOp(opcodes.OpClusterSetParams, {}))


class R_2_tags(tags.TagsResource):  # noqa: N801
    """C{/2/tags}"""

    TAG_KIND = constants.TAG_CLUSTER

    def GET(self) -> Any:
        """Tags of the cluster."""
        return self.context.cluster_tags()
