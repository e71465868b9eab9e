"""Configuration files of Xen and what xl answers (BASE2): texts in, values out."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors
from ganeti.hypervisor import xen_config, xen_parse

DATA = Path(__file__).parents[1] / "data"
PVM = constants.HVC_DEFAULTS[constants.HT_XEN_PVM]
HVM = constants.HVC_DEFAULTS[constants.HT_XEN_HVM]
PASSWORD = "se'cr\\et"
LINKS = "/var/run/ganeti/instance-disks/inst1.example.com"

GUEST = xen_config.GuestSpec("inst1.example.com", 512, 2)
FULL = dataclasses.replace(
    GUEST,
    disks=[
        xen_config.DiskSpec(f"{LINKS}:0"),
        xen_config.DiskSpec(f"{LINKS}:1", constants.FD_LOOP, writable=False),
        xen_config.DiskSpec(f"{LINKS}:2", constants.FD_BLKTAP),
    ],
    nics=[
        xen_config.NicSpec("aa:00:00:00:00:01", "192.0.2.1", "xen-br0"),
        xen_config.NicSpec("aa:00:00:00:00:02", "192.0.2.2"),
        xen_config.NicSpec("aa:00:00:00:00:03", None, "xen-br1"),
    ],
    network_port=11007,
)

#: File in test/data/xen -> guest and parameters that differ from the defaults.
CASES = {
    "pvm-plain": (GUEST, {}),
    "pvm-full": (
        FULL,
        {
            "initrd_path": "/boot/initrd",
            "root_path": "/dev/xvda1",
            "kernel_args": "ro init='/bin/a b' x=\\\"",
            "blockdev_prefix": "xvd",
        },
    ),
    "pvm-bootloader": (
        FULL,
        {
            "use_bootloader": True,
            "bootloader_path": "/usr/bin/pygrub",
            "bootloader_args": "--entry 1  -q",
            "kernel_args": "",
        },
    ),
    "hvm-plain": (GUEST, {}),
    "hvm-full": (
        FULL,
        {
            "boot_order": "dcn",
            "cdrom_image_path": "/srv/isos/a, b.iso",
            "nic_type": "paravirtual",
            "disk_type": "ioemu",
            "vnc_bind_address": "127.0.0.1",
            "acpi": False,
            "pae": False,
            "device_model": "/usr/libexec/xen-qemu-system-i386",
            "use_localtime": True,
        },
    ),
}


def Config(name):
    guest, changes = CASES[name]
    if name.startswith("pvm"):
        return xen_config.PvmConfig(guest, {**PVM, **changes})
    return xen_config.HvmConfig(guest, {**HVM, **changes}, PASSWORD)


def Values(text):
    return dict(line.split(" = ", 1) for line in text.splitlines() if not line.startswith("#"))


class TestConfig:
    """BASE2: the configuration of Xen instances, line by line."""

    @pytest.mark.parametrize("name", sorted(CASES))
    def test_golden(self, name):
        assert Config(name) == (DATA / "xen" / f"{name}.cfg").read_text()

    def test_every_parameter_is_used(self):
        """A parameter that makes no difference is one that was forgotten."""
        for table, build, ignored in (
            (PVM, lambda hvp: xen_config.PvmConfig(FULL, hvp), {"migration_port"}),
            (
                HVM,
                lambda hvp: xen_config.HvmConfig(FULL, hvp, ""),
                # What is in the password file is an argument of its own.
                {"migration_port", "vnc_password_file"},
            ),
        ):
            base = {**table, "bootloader_path": "/b"} if table is PVM else dict(table)
            for name, value in base.items():
                start = dict(base)
                if name.startswith("bootloader"):
                    start["use_bootloader"] = True
                other = (not value) if isinstance(value, bool) else "other"
                changed = build({**start, name: other}) != build(start)
                assert changed == (name not in ignored), name

    def test_boot_loader_without_path(self):
        with pytest.raises(errors.HypervisorError, match="bootloader_path"):
            xen_config.PvmConfig(GUEST, {**PVM, "use_bootloader": True})

    @pytest.mark.parametrize(
        ("port", "lines"),
        [(None, None), (5900, None), (5901, "1"), (11007, "5107")],
    )
    def test_vnc_display(self, port, lines):
        guest = dataclasses.replace(GUEST, network_port=port)
        values = Values(xen_config.HvmConfig(guest, HVM, ""))
        assert values.get("vncdisplay") == lines
        assert values["vncunused"] == ("1" if lines is None else "0")

    def test_vnc_without_address(self):
        text = xen_config.HvmConfig(GUEST, {**HVM, "vnc_bind_address": ""}, "")
        assert Values(text)["vnclisten"] == "'0.0.0.0'"

    @pytest.mark.parametrize(
        ("nic_type", "text"),
        [
            ("", ", type=ioemu"),
            ("paravirtual", ", type=vif"),
            ("ne2k_pci", ", model=ne2k_pci, type=ioemu"),
        ],
    )
    def test_nic_types(self, nic_type, text):
        guest = dataclasses.replace(GUEST, nics=[xen_config.NicSpec("aa:0")])
        values = Values(xen_config.HvmConfig(guest, {**HVM, "nic_type": nic_type}, ""))
        assert values["vif"] == f"['mac=aa:0{text}']"

    @given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f")))
    def test_quoted_text_reads_as_it_was(self, value):
        quoted = xen_config.Quote(value)
        inner, place, read = quoted[1:-1], 0, ""
        while place < len(inner):
            assert inner[place] != "'"
            place += inner[place] == "\\"
            read += inner[place]
            place += 1
        assert (quoted[0], quoted[-1], read) == ("'", "'", value)

    @pytest.mark.parametrize("value", ["a\nb", "\0", "\x7f", "\tsecret"])
    def test_control_characters_are_refused_and_not_told(self, value):
        with pytest.raises(errors.HypervisorError, match="control characters") as info:
            xen_config.HvmConfig(GUEST, HVM, value)
        assert "secret" not in str(info.value)

    @pytest.mark.parametrize(
        "nic",
        [
            xen_config.NicSpec("aa:0, script=/evil"),
            xen_config.NicSpec("aa:0", "1.2.3.4, script=/evil"),
            xen_config.NicSpec("aa:0", None, "br0,script=/evil"),
            xen_config.NicSpec("aa:0", None, "script=x"),
            xen_config.NicSpec(""),
        ],
    )
    def test_a_part_can_not_become_another_part(self, nic):
        with pytest.raises(errors.HypervisorError, match="can't be written"):
            xen_config.PvmConfig(dataclasses.replace(GUEST, nics=[nic]), PVM)

    def test_path_with_a_comma(self):
        disk = xen_config.DiskSpec("/srv/a,b")
        with pytest.raises(errors.HypervisorError, match="/srv/a,b"):
            xen_config.Disks([disk], "sd")
        assert xen_config.Disks([dataclasses.replace(disk, driver="blktap")], "sd") == [
            "format=raw, vdev=sda, access=w, target=/srv/a,b"
        ]


class TestDisks:
    def test_limit(self):
        disks = [xen_config.DiskSpec(f"/dev/d{index}") for index in range(25)]
        names = xen_config.Disks(disks[:24], "sd")
        assert (names[0], names[23]) == ("phy:/dev/d0,sda,w", "phy:/dev/d23,sdx,w")
        with pytest.raises(errors.HypervisorError, match="24.*25"):
            xen_config.Disks(disks, "sd")

    @pytest.mark.parametrize(("count", "place"), [(0, "hdc"), (2, "hdc"), (3, "hdd"), (4, None)])
    def test_cd_drive_has_a_place_that_no_disk_has(self, count, place):
        guest = dataclasses.replace(
            GUEST, disks=[xen_config.DiskSpec(f"/dev/d{index}") for index in range(count)]
        )
        hvp = {**HVM, "cdrom_image_path": "/cd.iso"}
        if place is None:
            with pytest.raises(errors.HypervisorError, match="no place for a CD drive beside 4"):
                xen_config.HvmConfig(guest, hvp, "")
            return
        text = Values(xen_config.HvmConfig(guest, hvp, ""))["disk"]
        assert f"vdev={place}, access=ro, devtype=cdrom, target=/cd.iso" in text
        assert text.count(place) == 1


def Answer(name):
    lines = (DATA / name).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


class TestList:
    """BASE2: domains without a name and halves of migrations are no instances."""

    def test_four_instances(self):
        domains = xen_parse.ParseList(Answer("golden/tools/xen-xm-list-4.0.1-four-instances.txt"))
        assert [domain.name for domain in domains if xen_parse.IsInstance(domain)] == [
            "server01.example.com",
            "web3106215069.example.com",
            "testinstance.example.com",
        ]
        assert xen_parse.Find(domains, "testinstance.example.com").ToInfo() == (
            "testinstance.example.com",
            2,
            2048,
            2,
            "r-----",
            244443.0,
        )

    def test_crashed(self):
        domains = xen_parse.ParseList(Answer("golden/tools/xen-xl-list-4.4-crashed-instances.txt"))
        assert [domain.name for domain in domains] == [
            "Domain-0",
            "server01.example.com",
            "alsodying.example.com",
        ]

    def test_migrating(self):
        domains = xen_parse.ParseList(Answer("xen/xl-list-migration.txt"))
        assert [domain.name for domain in domains if xen_parse.IsInstance(domain)] == [
            "inst1.example.com"
        ]
        assert xen_parse.Find(domains, "inst2.example.com") is None
        assert xen_parse.Find(domains, "inst2.example.com--incoming").state == "--p---"

    @pytest.mark.parametrize(
        "line",
        [
            "a.example.com 1 2 3 r-----",
            "a.example.com 1 2 3 r----- 1.0 x",
            "a.example.com x 2 3 r----- 1.0",
            "a.example.com 1 2.5 3 r----- 1.0",
            "a.example.com 1 2 3 r----- soon",
        ],
    )
    def test_bad_line_is_named(self, line):
        with pytest.raises(errors.HypervisorError, match=line.replace(".", r"\.")):
            xen_parse.ParseList(f"Name ID Mem VCPUs State Time(s)\n{line}\n")

    @pytest.mark.parametrize("text", ["", "Error: is xend running?\n"])
    def test_no_list_at_all(self, text):
        with pytest.raises(errors.HypervisorError, match="header"):
            xen_parse.ParseList(text)

    @pytest.mark.parametrize(
        ("domid", "time", "rebooted"),
        [(3, 20.5, False), (3, 30.0, False), (4, 30.0, True), (3, 0.1, True)],
    )
    def test_reboot(self, domid, time, rebooted):
        before = xen_parse.Domain("a", 3, 1, 1, "-b----", 20.5)
        now = dataclasses.replace(before, domid=domid, cpu_time=time)
        assert xen_parse.HasRebooted(before, now) is rebooted
        assert not xen_parse.HasRebooted(before, None)


class TestInfo:
    def test_xl(self):
        assert xen_parse.ParseInfo(Answer("xen/xl-info.txt")) == {
            "memory_total": 6141,
            "memory_free": 4274,
            "cpu_total": 4,
            "cpu_nodes": 1,
            "cpu_sockets": 1,
        }

    def test_xm(self):
        info = xen_parse.ParseInfo(Answer("golden/tools/xen-xm-info-4.0.1.txt"))
        assert info == {
            "memory_total": 16378,
            "memory_free": 8004,
            "cpu_total": 4,
            "cpu_nodes": 1,
            "cpu_sockets": 2,
        }

    @pytest.mark.parametrize(
        ("cpus", "cores", "threads", "sockets"),
        [(16, 4, 2, 2), (16, 8, 1, 2), (8, 4, 2, 1), (6, 4, 2, 1), (1, 1, 1, 1)],
    )
    def test_sockets(self, cpus, cores, threads, sockets):
        text = f"nr_cpus : {cpus}\ncores_per_socket : {cores}\nthreads_per_core : {threads}\n"
        assert xen_parse.ParseInfo(text)["cpu_sockets"] == sockets

    def test_what_is_not_told_is_left_out(self):
        assert xen_parse.ParseInfo("nr_cpus : 4\nmemory : 10\nblah\n") == {
            "cpu_total": 4,
            "memory_total": 10,
        }
        assert "cpu_sockets" not in xen_parse.ParseInfo(
            "nr_cpus : 4\ncores_per_socket : 0\nthreads_per_core : 1\n"
        )

    def test_no_number(self):
        with pytest.raises(errors.HypervisorError, match="free_memory is 'much'"):
            xen_parse.ParseInfo("free_memory : much\n")
