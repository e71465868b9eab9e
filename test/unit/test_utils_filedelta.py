"""Deltas between versions of a file."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from ganeti.utils import filedelta

#: Members as they stand in a block, and pieces of several of them.
MEMBERS = st.lists(
    st.text(max_size=60).map(lambda text: f'\n    "{text}').map(str.encode), max_size=6
)
PIECES = st.lists(MEMBERS.map(b"".join), max_size=12)


def _Version(serial_no, pieces):
    return filedelta.Version(serial_no, pieces, b"".join(pieces))


class TestDelta:
    @given(PIECES, st.data())
    def test_leads_to_the_new_one(self, pieces, data):
        """Pieces may stay, come again, go, change and be new."""
        old = _Version(7, pieces)
        kept = st.sampled_from(pieces) if pieces else st.nothing()
        changed = st.tuples(kept, MEMBERS.map(b"".join)).map(b"".join)
        new = _Version(8, data.draw(st.lists(st.one_of(kept, changed, MEMBERS.map(b"".join)))))
        delta = filedelta.Make(old, new)
        assert (delta.base_serial, delta.serial) == (7, 8)
        assert filedelta.Apply(delta.instructions, old.content, delta.checksum) == new.content

    def test_size_follows_the_change(self):
        members = [b'\n    "name%d": {\n      "a": 1\n    },' % number for number in range(1000)]
        blocks = [b"".join(members[start : start + 100]) for start in range(0, 1000, 100)]
        changed = members[500:600]
        changed[50] = b'\n    "name550": {\n      "a": 2\n    },'
        delta = filedelta.Make(
            _Version(1, blocks), _Version(2, [*blocks[:5], b"".join(changed), *blocks[6:]])
        )
        size = len(b"".join(members[:550]))
        end = size + len(members[550])
        assert delta.instructions == [
            [0, size],
            changed[50].decode(),
            [end, len(b"".join(members)) - end],
        ]

    def test_another_base_is_noticed(self):
        old, new = _Version(1, [b"a" * 100, b"b" * 100]), _Version(2, [b"a" * 100, b"c"])
        delta = filedelta.Make(_Version(1, old.pieces), _Version(2, [old.pieces[0], b"c"]))
        assert filedelta.Apply(delta.instructions, b"x" * 200, delta.checksum) is None
        assert filedelta.Apply(delta.instructions, b"", delta.checksum) is None
        assert filedelta.Apply(delta.instructions, old.content, delta.checksum) == new.content
        assert delta.checksum == zlib.crc32(new.content)
