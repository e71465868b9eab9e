"""Resources that later generations have and their clients ask for; see L{later}."""

from __future__ import annotations

from typing import Any, Final

from .. import ht
from . import baserlib, later


class R_2_groups(baserlib.ResourceBase):  # noqa: N801
    """C{/2/groups}"""

    def GET(self) -> Any:
        """The one group."""
        if self.UseBulk():
            return [_QueryGroup(self.client)]
        return [{"name": later.DEFAULT_GROUP_NAME, "uri": f"/2/groups/{later.DEFAULT_GROUP_NAME}"}]


class R_2_groups_name(baserlib.ResourceBase):  # noqa: N801
    """C{/2/groups/[group]}"""

    def GET(self) -> Any:
        """All about a group."""
        _CheckGroup(self.request.items[0])
        return _QueryGroup(self.client)


class R_2_groups_name_tags(baserlib.ResourceBase):  # noqa: N801
    """C{/2/groups/[group]/tags}"""

    def GET(self) -> Any:
        """Groups have no tags."""
        _CheckGroup(self.request.items[0])
        return []


def _CheckGroup(name: str) -> None:
    if name not in (later.DEFAULT_GROUP_NAME, later.DEFAULT_GROUP_UUID):
        raise baserlib.NotFound(
            f"There is no group '{name}': all nodes are in '{later.DEFAULT_GROUP_NAME}'"
        )


def _QueryGroup(client: Any) -> dict[str, Any]:
    nodes = [row[0] for row in client.QueryNodes([], ["name"], False)]
    info = client.QueryClusterInfo()
    return later.MakeGroup(nodes, info.get("ctime"), info.get("mtime"))


class R_2_none(baserlib.ResourceBase):  # noqa: N801
    """C{/2/networks}, C{/2/filters}: lists of what there is none of."""

    def GET(self) -> Any:
        """Nothing."""
        return []


#: What a query takes in its body.
_QUERY_FIELDS: Final = ht.TNonEmptyListOf(ht.TString)
_QUERY_KEYS: Final = ("fields", "qfilter", "filter")


class R_2_query(baserlib.ResourceBase):  # noqa: N801
    """C{/2/query/[what]}"""

    GET_ACCESS = (baserlib.ACCESS_WRITE, baserlib.ACCESS_READ)
    PUT_ACCESS = GET_ACCESS

    def GET(self) -> Any:
        """Rows of everything; the fields come as query argument."""
        return self._Query(self.GetRequiredArg("fields").split(","), None)

    def PUT(self) -> Any:
        """Rows; fields and filter come in the body."""
        body = self.GetBodyObject()
        for name, value in body.items():
            if name not in _QUERY_KEYS:
                raise baserlib.BadRequest(
                    f"Unknown field {ht.Show(name)} (value {ht.Show(value)}) in the body; it takes"
                    f" {', '.join(_QUERY_KEYS)}"
                )
        fields = body.get("fields")
        if fields is None:
            fields = self.GetRequiredArg("fields").split(",")
        problem = _QUERY_FIELDS.Problem(fields)
        if problem is not None:
            raise baserlib.BadRequest(f"Field 'fields' must be {_QUERY_FIELDS}: {problem}")
        return self._Query(fields, body.get("qfilter", body.get("filter")))

    def _Query(self, fields: list[str], qfilter: Any) -> Any:
        return self.client.Query(self.request.items[0], fields, qfilter)


class R_2_query_fields(baserlib.ResourceBase):  # noqa: N801
    """C{/2/query/[what]/fields}"""

    def GET(self) -> Any:
        """Definitions of fields."""
        fields = self.GetArg("fields")
        return self.client.QueryFields(
            self.request.items[0], None if fields is None else fields.split(",")
        )
