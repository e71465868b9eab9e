"""Tags of any kind of object."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import opcodes
from . import baserlib


class TagsResource(baserlib.ResourceBase):
    """Tags; the object's name is the variable part of the path.

    Bodies are ignored, as some clients send the tags there a second time.

    @cvar TAG_KIND: kind of the tagged objects
    """

    TAG_KIND: ClassVar[str]

    def _GetName(self) -> str:
        return self.request.items[0] if self.request.items else ""

    def GET(self) -> Any:
        """The tags."""
        return list(self.client.QueryTags(self.TAG_KIND, self._GetName()))

    def PUT(self) -> Any:
        """Add tags; job id."""
        return self._Submit(opcodes.OpTagsSet)

    def DELETE(self) -> Any:
        """Remove tags; job id. Without tags this is an error and never means all of them."""
        return self._Submit(opcodes.OpTagsDel)

    def _Submit(self, cls: type[opcodes.OpCode]) -> Any:
        tags = list(self.request.query.get("tag", ()))
        if not tags:
            raise baserlib.BadRequest(
                "Missing the required 'tag' parameter: give one or more tags as '?tag=...&tag=...'"
            )
        fixed = {"kind": self.TAG_KIND, "name": self._GetName(), "tags": tags}
        return self.SubmitJob(self.MakeOp(cls, fixed, body={}))
