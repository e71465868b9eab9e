"""Descriptions of exports: what is written is read again, and what is hostile is refused."""

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, objects

#: What values may be: one line, without blanks at its ends, and not the word for "unset".
TEXTS = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"])
    | st.sampled_from("% ;#=:[]"),
    max_size=30,
).filter(lambda text: text == text.strip() and text != "None")
MAYBE = st.none() | TEXTS
KEYS = st.sampled_from(["kernel_path", "kernel_args", "Root_Path", "vnc_bind_address", "acpi"])
EXPORTS = st.builds(
    objects.Export,
    os=TEXTS,
    name=MAYBE,
    disk_template=MAYBE,
    hypervisor=MAYBE,
    nics=st.none()
    | st.lists(
        st.fixed_dictionaries(dict.fromkeys(["mac", "ip", "mode", "link"], MAYBE)), max_size=8
    ).map(tuple),
    disks=st.none()
    | st.lists(
        st.builds(
            objects.ExportedDisk,
            size=st.integers(1, 10**8),
            image=st.uuids().map(lambda uuid: f"{uuid}.disk0.snap"),
        ),
        max_size=16,
    ).map(tuple),
    hvparams=st.dictionaries(KEYS, TEXTS),
    beparams=st.dictionaries(st.sampled_from(["memory", "vcpus", "auto_balance"]), TEXTS),
    timestamp=st.integers(0, 10**11),
    source=MAYBE,
)

#: As Ganeti 2.1 writes it.
OLD = """[export]
version = 0
timestamp = 1290000000
source = node1.example.com
os = debootstrap+default
compression = gzip

[instance]
name = inst1.example.com
memory = 512
vcpus = 2
disk_template = drbd
hypervisor = xen-pvm
nic0_mac = aa:00:00:12:34:56
nic0_ip = None
nic0_mode = bridged
nic0_link = xen-br0
nic_count = 1
disk0_ivname = disk/0
disk0_dump = 12.disk0_data.snap
disk0_size = 1024
disk_count = 1

[hypervisor]
kernel_path = /boot/vmlinuz-2.6-xenU
kernel_args = ro panic=5 rate=50%%
initrd_path = None
bootloader_path =

[backend]
memory = 512
vcpus = 2
auto_balance = True
"""


class TestRoundTrip:
    @given(EXPORTS)
    def test_all(self, export):
        assert objects.ParseExport(objects.FormatExport(export)) == export

    def test_disks_that_were_not_saved(self):
        """In between they are known to be missing; those at the end are not described at all."""
        disk, none = objects.ExportedDisk(8, "a"), objects.ExportedDisk(None, None)
        export = objects.Export(os="x", disks=(none, disk, none))
        text = objects.FormatExport(export)
        assert "disk_count = 1\n" in text
        assert objects.ParseExport(text).disks == (none, disk)

    @pytest.mark.parametrize("breaker", ["\n", "\r", "\x0b", "\x85", "\u2028"])
    def test_line_breaks(self, breaker):
        export = objects.Export(os="x", hvparams={"kernel_args": f"a{breaker}[export]"})
        with pytest.raises(errors.ConfigurationError, match="kernel_args"):
            objects.FormatExport(export)

    @pytest.mark.parametrize("value", ["50%", "%%", "%(os)s", "%%%s"])
    def test_percent_signs(self, value):
        """Readers that look for references find none."""
        text = objects.FormatExport(objects.Export(os="x", hvparams={"kernel_args": value}))
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert parser.get("hypervisor", "kernel_args") == value
        assert objects.ParseExport(text).hvparams == {"kernel_args": value}

    def test_unset_parameters(self):
        export = objects.Export(os="x", hvparams={"initrd_path": None, "kernel_path": ""})
        assert objects.ParseExport(objects.FormatExport(export)).hvparams == {"kernel_path": ""}


class TestOld:
    """Exports of Ganeti 2.1."""

    def test_all(self):
        assert objects.ParseExport(OLD) == objects.Export(
            os="debootstrap+default",
            name="inst1.example.com",
            disk_template="drbd",
            hypervisor="xen-pvm",
            nics=({"mac": "aa:00:00:12:34:56", "ip": None, "mode": "bridged", "link": "xen-br0"},),
            disks=(objects.ExportedDisk(1024, "12.disk0_data.snap"),),
            hvparams={
                "kernel_path": "/boot/vmlinuz-2.6-xenU",
                "kernel_args": "ro panic=5 rate=50%",
                "bootloader_path": "",
            },
            beparams={"memory": "512", "vcpus": "2", "auto_balance": "True"},
            timestamp=1290000000,
            source="node1.example.com",
        )

    def test_without_backend(self):
        """Older ones have those parameters among those of the instance."""
        text = OLD[: OLD.index("[backend]")]
        assert objects.ParseExport(text).beparams == {"memory": "512", "vcpus": "2"}

    def test_single_percent(self):
        text = OLD.replace("50%%", "50% %(os)s")
        assert objects.ParseExport(text).hvparams["kernel_args"] == "ro panic=5 rate=50% %(os)s"

    def test_missing_sections(self):
        export = objects.ParseExport("[export]\nversion = 0\nos = x\n")
        assert export == objects.Export(os="x")


class TestBroken:
    @pytest.mark.parametrize(
        ("old", "new", "fragments"),
        [
            ("[export]", "[other]", ["[export]"]),
            ("version = 0", "version = 1", ["version", "'1'"]),
            ("version = 0", "", ["version", "None"]),
            ("os = debootstrap+default", "os = None", ["OS"]),
            ("[export]", "no section\n[export]", ["INI"]),
            ("vcpus = 2", "vcpus = 2\nvcpus = 3", ["INI", "vcpus"]),
            ("[export]", "[DEFAULT]\nmemory = 1\n[export]", ["defaults"]),
            ("disk_count = 1", "disk_count = -1", ["disk_count", "'-1'"]),
            ("disk_count = 1", "disk_count = 999999999999", ["disk_count"]),
            ("disk_count = 1", "disk_count = 17", ["17", "16"]),
            ("disk_count = 1", "disk99999999_size = 4\ndisk_count = 1", ["100000000"]),
            ("disk0_size = 1024", "disk0_size = 1.5", ["disk0_size", "'1.5'"]),
            ("disk0_size = 1024", "disk0_size = 0", ["disk0_size"]),
            ("12.disk0_data.snap", "../../etc/passwd", ["disk0_dump", "passwd"]),
            ("12.disk0_data.snap", "..", ["disk0_dump"]),
            ("12.disk0_data.snap", "a\n b", ["disk0_dump"]),
        ],
    )
    def test_refused(self, old, new, fragments):
        assert old in OLD
        with pytest.raises(errors.OpPrereqError) as caught:
            objects.ParseExport(OLD.replace(old, new, 1))
        text, code = caught.value.args
        assert code == errors.ECODE_ENVIRON
        for fragment in fragments:
            assert fragment in text

    @pytest.mark.parametrize("count", ["many", "9", "-1", "1.0", ""])
    def test_number_of_nics(self, count):
        with pytest.raises(errors.OpPrereqError, match="nic_count") as caught:
            objects.ParseExport(OLD.replace("nic_count = 1", f"nic_count = {count}"))
        assert caught.value.args[1] == errors.ECODE_STATE

    @given(st.text())
    def test_anything(self, text):
        for whole in (text, f"[export]\nversion = 0\nos = x\n[instance]\n{text}"):
            try:
                export = objects.ParseExport(whole)
            except errors.OpPrereqError:
                continue
            assert len(export.disks or ()) <= constants.MAX_DISKS
