"""KVM without a QEMU: command lines as tables, files, parsing of foreign output (BASE2)."""

import os
from pathlib import Path

import pytest

from ganeti import constants, errors, pathutils
from ganeti.hypervisor import (
    kvm_capabilities,
    kvm_command,
    kvm_files,
    kvm_net,
)
from ganeti.runtime import fake

QEMU_DATA = Path(__file__).parents[1] / "data/qemu"

#: What the help of QEMU 10.0 says.
RUN_WITH_HELP = """-sandbox on[,obsolete=allow|deny][,elevateprivileges=allow|deny|children]
          [,spawn=allow|deny][,resourcecontrol=allow|deny]
                Enable seccomp mode 2 system call filter (default 'off').
-run-with [async-teardown=on|off][,chroot=dir][user=username|uid:gid]
                Set miscellaneous QEMU process lifecycle options:
                async-teardown=on enables asynchronous teardown (Linux only)
                chroot=dir chroot to dir just before starting the VM
                user=username switch to the specified user before starting the VM
                user=uid:gid ditto, but use specified user-ID and group-ID instead
-msg [timestamp[=on|off]][,guest-name=[on|off]]
                control error message format
"""

DEFAULTS = constants.HVC_DEFAULTS[constants.HT_KVM]
ALL_DEVICES = kvm_capabilities.ParseDevices((QEMU_DATA / "device-7.2.txt").read_text())
CAPS = kvm_capabilities.Capabilities(
    "/usr/bin/qemu", (7, 2, 22), "pc-i440fx-7.2", ALL_DEVICES, frozenset(), True
)
PATHS = kvm_files.Paths("inst1.example.com", "/R", "/L")
GUEST = kvm_command.GuestSpec(
    name="inst1.example.com",
    uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
    memory=512,
    vcpus=2,
    disks=(kvm_command.DiskSpec("/links/inst1:0", is_block=True, is_shared=True),),
    network_port=11005,
)


def _Guest(**changes):
    return kvm_command.GuestSpec(**{**GUEST.__dict__, **changes})


def _Disk(path="/d0", is_block=False, is_shared=False, read_only=False):
    return kvm_command.DiskSpec(path, is_block, is_shared, read_only)


def _Build(guest=GUEST, caps=CAPS, accelerator="kvm", **hvparams):
    return kvm_command.BuildMachine(caps, PATHS, guest, {**DEFAULTS, **hvparams}, accelerator)


def _Values(argv, option):
    """All values of an option."""
    return [value for word, value in zip(argv, argv[1:], strict=False) if word == option]


class TestMachine:
    """BASE2: each parameter of the kvm hypervisor has its place in the command line."""

    def test_whole(self):
        assert _Build() == [
            "/usr/bin/qemu",
            *("-name", "inst1.example.com,debug-threads=on"),
            *("-m", "512"),
            *("-smp", "2"),
            *("-pidfile", "/R/pid/inst1.example.com"),
            "-daemonize",
            *("-machine", "pc-i440fx-7.2,acpi=on"),
            *("-accel", "kvm"),
            "-nodefaults",
            "-no-user-config",
            *("-uuid", "7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11"),
            *("-rtc", "base=utc"),
            "-blockdev",
            "driver=raw,node-name=blk0,cache.direct=on,auto-read-only=off,"
            "file.driver=host_device,file.filename=/links/inst1:0",
            *("-device", "virtio-blk-pci,drive=blk0,id=disk0,bootindex=1"),
            *("-kernel", "/boot/vmlinuz-2.6-kvmU"),
            *("-append", "root=/dev/vda1 ro console=ttyS0,38400"),
            *("-display", "none"),
            "-chardev",
            "socket,id=monitor,path=/R/ctrl/inst1.example.com.monitor,server=on,wait=off",
            *("-mon", "chardev=monitor,mode=readline"),
            "-chardev",
            "socket,id=qmp,path=/R/ctrl/inst1.example.com.qmp,server=on,wait=off",
            *("-mon", "chardev=qmp,mode=control"),
            "-chardev",
            "socket,id=serial0,path=/R/ctrl/inst1.example.com.serial,server=on,wait=off",
            *("-serial", "chardev:serial0"),
            *("-d", "page"),
            *("-D", "/L/inst1.example.com.log"),
        ]

    @pytest.mark.parametrize(
        ("hvparams", "option", "values"),
        [
            ({"acpi": False}, "-machine", ["pc-i440fx-7.2,acpi=off"]),
            ({"accelerator": "tcg"}, "-accel", ["tcg"]),
            ({"use_localtime": True}, "-rtc", ["base=localtime"]),
            ({"serial_console": False}, "-serial", ["none"]),
            ({"serial_console": False}, "-append", ["root=/dev/vda1 ro"]),
            ({"kernel_args": ""}, "-append", ["root=/dev/vda1 console=ttyS0,38400"]),
            ({"root_path": "/dev/sda2"}, "-append", ["root=/dev/sda2 ro console=ttyS0,38400"]),
            ({"initrd_path": "/boot/initrd"}, "-initrd", ["/boot/initrd"]),
            ({"kernel_path": "", "initrd_path": "/boot/initrd"}, "-initrd", []),
            ({"kernel_path": ""}, "-append", []),
            ({"vnc_bind_address": "0.0.0.0"}, "-vnc", [":5105"]),
            ({"vnc_bind_address": "192.0.2.7"}, "-vnc", ["192.0.2.7:5105"]),
            ({"vnc_bind_address": "192.0.2.7"}, "-display", []),
            ({"vnc_bind_address": "/run/v,nc"}, "-vnc", ["unix:/run/v,,nc/inst1.example.com.vnc"]),
            (
                {"vnc_bind_address": "/run", "vnc_password_file": "/p", "vnc_tls": True},
                "-vnc",
                ["unix:/run/inst1.example.com.vnc,password=on"],
            ),
            ({"vnc_bind_address": "/run", "vnc_tls": True}, "-object", []),
            (
                {"vnc_bind_address": "192.0.2.7", "vnc_password_file": "/p", "vnc_tls": True},
                "-vnc",
                ["192.0.2.7:5105,tls-creds=vnctls0,password=on"],
            ),
            (
                {"vnc_bind_address": "192.0.2.7", "vnc_tls": True},
                "-object",
                ["tls-creds-anon,id=vnctls0,endpoint=server"],
            ),
            (
                {"vnc_bind_address": "192.0.2.7", "vnc_tls": True, "vnc_x509_path": "/x"},
                "-object",
                ["tls-creds-x509,id=vnctls0,endpoint=server,dir=/x,verify-peer=off"],
            ),
            (
                {
                    "vnc_bind_address": "192.0.2.7",
                    "vnc_tls": True,
                    "vnc_x509_path": "/x",
                    "vnc_x509_verify": True,
                },
                "-object",
                ["tls-creds-x509,id=vnctls0,endpoint=server,dir=/x,verify-peer=on"],
            ),
            ({"vnc_bind_address": "192.0.2.7", "vnc_x509_path": "/x"}, "-object", []),
        ],
    )
    def test_one_option(self, hvparams, option, values):
        assert _Values(_Build(**hvparams), option) == values

    @pytest.mark.parametrize(
        ("hvparams", "devices"),
        [
            ({}, []),
            ({"usb_mouse": "mouse"}, ["qemu-xhci", "usb-mouse"]),
            ({"vnc_bind_address": "0.0.0.0"}, ["qemu-xhci", "usb-tablet", "VGA"]),
            (
                {"vnc_bind_address": "0.0.0.0", "usb_mouse": "mouse"},
                ["qemu-xhci", "usb-mouse", "VGA"],
            ),
        ],
    )
    def test_pointer_and_screen(self, hvparams, devices):
        assert _Values(_Build(_Guest(disks=()), **hvparams), "-device") == devices

    def test_values_with_commas(self):
        (blockdev,) = _Values(_Build(_Guest(disks=(_Disk("/srv/a,b"),))), "-blockdev")
        assert blockdev.endswith("file.driver=file,file.filename=/srv/a,,b")

    @pytest.mark.parametrize("port", [None, 5900, 80])
    def test_vnc_needs_a_port(self, port):
        with pytest.raises(errors.HypervisorError, match="vnc_bind_address"):
            _Build(_Guest(network_port=port), vnc_bind_address="0.0.0.0")

    def test_no_uuid(self):
        assert "-uuid" not in _Build(_Guest(uuid=None))


class TestDisks:
    """BASE2: models, cache modes, boot order."""

    @pytest.mark.parametrize(
        ("cache", "shared", "blockdev", "device"),
        [
            ("default", False, "", ""),
            ("default", True, ",cache.direct=on", ""),
            ("none", False, ",cache.direct=on", ",write-cache=on"),
            ("writethrough", True, ",cache.direct=off", ",write-cache=off"),
            ("writeback", True, ",cache.direct=off", ",write-cache=on"),
        ],
    )
    def test_cache(self, cache, shared, blockdev, device):
        argv = _Build(_Guest(disks=(_Disk(is_shared=shared),)), disk_cache=cache)
        assert _Values(argv, "-blockdev") == [
            f"driver=raw,node-name=blk0{blockdev},auto-read-only=off,"
            "file.driver=file,file.filename=/d0"
        ]
        assert _Values(argv, "-device") == [
            f"virtio-blk-pci,drive=blk0,id=disk0{device},bootindex=1"
        ]

    @pytest.mark.parametrize(
        ("disk_type", "boot_order", "devices"),
        [
            (
                "paravirtual",
                "disk",
                [
                    "virtio-blk-pci,drive=blk0,id=disk0,bootindex=1",
                    "virtio-blk-pci,drive=blk1,id=disk1",
                    "ide-cd,drive=blkcd0,id=cdrom0,bus=ide.0,unit=0",
                ],
            ),
            (
                "ide",
                "cdrom",
                [
                    "ide-hd,drive=blk0,id=disk0,bus=ide.0,unit=0,bootindex=2",
                    "ide-hd,drive=blk1,id=disk1,bus=ide.0,unit=1",
                    "ide-cd,drive=blkcd0,id=cdrom0,bus=ide.1,unit=0,bootindex=1",
                ],
            ),
            (
                "scsi",
                "network",
                [
                    "virtio-scsi-pci,id=scsi0",
                    "scsi-hd,drive=blk0,id=disk0,bootindex=2",
                    "scsi-hd,drive=blk1,id=disk1",
                    "scsi-cd,drive=blkcd0,id=cdrom0",
                ],
            ),
        ],
    )
    def test_models_and_boot_order(self, disk_type, boot_order, devices):
        guest = _Guest(disks=(_Disk("/d0"), _Disk("/d1")), cdrom=_Disk("/cd"))
        argv = _Build(guest, disk_type=disk_type, boot_order=boot_order)
        assert _Values(argv, "-device") == devices
        assert _Values(argv, "-blockdev")[-1] == (
            "driver=raw,node-name=blkcd0,read-only=on,file.driver=file,file.filename=/cd"
        )

    def test_ide_has_four_places(self):
        disks = tuple(_Disk(f"/d{index}") for index in range(4))
        _Build(_Guest(disks=disks), disk_type="ide")
        with pytest.raises(errors.HypervisorError, match="4 that are possible"):
            _Build(_Guest(disks=disks, cdrom=_Disk("/cd")), disk_type="ide")

    def test_ide_of_q35(self):
        caps = kvm_capabilities.Capabilities("/q", (9, 0, 0), "pc-q35-9.0", ALL_DEVICES)
        guest = _Guest(disks=(_Disk("/d0"), _Disk("/d1")))
        devices = _Values(_Build(guest, caps, disk_type="ide"), "-device")
        assert [device.split(",")[3] for device in devices] == ["bus=ide.0", "bus=ide.1"]

    @pytest.mark.parametrize("disk_type", ["sd", "mtd", "pflash"])
    def test_types_that_no_instance_can_have(self, disk_type):
        with pytest.raises(errors.HypervisorError, match=f"disk_type={disk_type}"):
            _Build(disk_type=disk_type)

    def test_read_only(self):
        with pytest.raises(errors.HypervisorError, match="Disk 0.*read-only"):
            _Build(_Guest(disks=(_Disk(read_only=True),)))

    def test_missing_device(self):
        caps = kvm_capabilities.Capabilities("/q", (7, 2, 0), "pc", frozenset())
        with pytest.raises(errors.HypervisorError, match=r"virtio-blk-pci.*disk type"):
            _Build(caps=caps)


class TestNics:
    """BASE2, PR4: network cards."""

    MACS = ("aa:00:00:00:00:01", "aa:00:00:00:00:02")

    def _Build(self, backend=kvm_command.NET_TAP, macs=MACS, **hvparams):
        return kvm_command.BuildNics(CAPS, macs, {**DEFAULTS, **hvparams}, backend)

    def test_none(self):
        assert self._Build(macs=()) == []

    def test_two(self):
        assert self._Build() == [
            *("-netdev", "tap,id=net0,script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=net0,id=nic0,mac=aa:00:00:00:00:01,romfile="),
            *("-netdev", "tap,id=net1,script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=net1,id=nic1,mac=aa:00:00:00:00:02,romfile="),
        ]

    def test_user_mode(self):
        argv = self._Build(kvm_command.NET_USER, vhost_net=True)
        assert _Values(argv, "-netdev") == ["user,id=net0", "user,id=net1"]

    @pytest.mark.parametrize(
        ("nic_type", "vhost"), [("paravirtual", True), ("e1000", False), ("rtl8139", False)]
    )
    def test_vhost_is_for_paravirtual_cards(self, nic_type, vhost):
        netdev = _Values(self._Build(nic_type=nic_type, vhost_net=True), "-netdev")[0]
        assert netdev.endswith(",vhost=on") == vhost

    def test_boot_from_network(self):
        devices = _Values(self._Build(boot_order="network", nic_type="e1000"), "-device")
        assert devices == [
            "e1000,netdev=net0,id=nic0,mac=aa:00:00:00:00:01,bootindex=1",
            "e1000,netdev=net1,id=nic1,mac=aa:00:00:00:00:02",
        ]

    @pytest.mark.parametrize("nic_type", constants.HT_KVM_VALID_NIC_TYPES)
    def test_every_type_has_a_device(self, nic_type):
        device = _Values(self._Build(nic_type=nic_type), "-device")[0].split(",")[0]
        assert device == ("virtio-net-pci" if nic_type == "paravirtual" else nic_type)

    def test_isa_card_has_no_boot_code(self):
        assert "romfile" not in " ".join(self._Build(nic_type="ne2k_isa"))


class TestExecution:
    """BASE2, UP3: how the process is run, with options of older and newer QEMUs."""

    @pytest.mark.parametrize(
        ("run_with", "kwargs", "words"),
        [
            ((), {}, ["-S", "-sandbox", "on"]),
            ((), {"user": "u"}, ["-S", "-runas", "u", "-sandbox", "on"]),
            (
                (),
                {"user": "u", "chroot": "/c"},
                ["-S", "-chroot", "/c", "-runas", "u", "-sandbox", "on"],
            ),
            (("chroot",), {"chroot": "/c"}, ["-S", "-run-with", "chroot=/c", "-sandbox", "on"]),
            (
                ("chroot",),
                {"user": "u", "chroot": "/c"},
                ["-S", "-runas", "u", "-run-with", "chroot=/c", "-sandbox", "on"],
            ),
            (
                ("chroot", "user"),
                {"user": "u", "chroot": "/c,d"},
                ["-S", "-run-with", "chroot=/c,,d,user=u", "-sandbox", "on"],
            ),
            ((), {"incoming": "defer"}, ["-incoming", "defer", "-sandbox", "on"]),
        ],
    )
    def test_options(self, run_with, kwargs, words):
        caps = kvm_capabilities.Capabilities(
            "/q", (9, 1, 0), "pc", frozenset(), frozenset(run_with), True
        )
        assert kvm_command.BuildExecution(caps, **kwargs) == words

    def test_no_sandbox(self):
        caps = kvm_capabilities.Capabilities("/q", (9, 1, 0), "pc", frozenset())
        assert kvm_command.BuildExecution(caps) == ["-S"]


class TestCapabilities:
    """BASE2: what QEMU says about itself, as recorded."""

    def test_qemu_7_2(self):
        text = (QEMU_DATA / "help-7.2.txt").read_text()
        assert kvm_capabilities.ParseHelp(text) == (frozenset(), True)
        version = (QEMU_DATA / "version-7.2.txt").read_text()
        assert kvm_capabilities.ParseVersion(version) == (7, 2, 22)
        machines = (QEMU_DATA / "machine-7.2.txt").read_text()
        assert kvm_capabilities.ParseMachines(machines) == "pc-i440fx-7.2"
        assert kvm_capabilities.ParseMachines(machines, "q35") == "pc-q35-7.2"
        assert {"virtio-net-pci", "ne2k_isa", "ide-hd", "qemu-xhci"} <= ALL_DEVICES

    def test_machines_of_another_distribution(self):
        text = (QEMU_DATA / "machine-6.0-ubuntu.txt").read_text()
        assert kvm_capabilities.ParseMachines(text) == "pc-i440fx-6.0"
        assert kvm_capabilities.ParseMachines(text, "nosuch") == "pc-i440fx-impish"

    def test_no_machine(self):
        with pytest.raises(errors.HypervisorError):
            kvm_capabilities.ParseMachines("Supported machines are:\nnone  empty machine\n")

    def test_run_with(self):
        words = frozenset(["chroot", "user"])
        assert kvm_capabilities.ParseHelp(RUN_WITH_HELP) == (words, True)
        older = "-run-with [async-teardown=on|off]\n     Set user=things\n-chroot dir\n"
        assert kvm_capabilities.ParseHelp(older.replace("user=", "")) == (frozenset(), False)

    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("QEMU emulator version 8.2.2 (Debian 1:8.2)", (8, 2, 2)),
            ("QEMU emulator version 10.0.50 (v10.0.0-1)", (10, 0, 50)),
            ("QEMU emulator version 6.0", (6, 0, 0)),
        ],
    )
    def test_version(self, text, version):
        assert kvm_capabilities.ParseVersion(text) == version

    def test_no_version(self):
        with pytest.raises(errors.HypervisorError):
            kvm_capabilities.ParseVersion("command not found")

    def _Binary(self, tmp_path, name="qemu", content=b"\x7fELF"):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o755)
        return str(path)

    def _Runtime(self, version="7.2.22"):
        rt = fake.NewRuntime()
        rt.processes.Answer("* --version", f"QEMU emulator version {version}\n")
        for option, name in (("-help", "help"), ("-machine help", "machine")):
            rt.processes.Answer(f"* {option}", (QEMU_DATA / f"{name}-7.2.txt").read_text())
        rt.processes.Answer(
            "* -machine pc-i440fx-7.2 -device help", (QEMU_DATA / "device-7.2.txt").read_text()
        )
        return rt

    def test_probe_once_for_each_binary(self, tmp_path):
        rt, path = self._Runtime(), self._Binary(tmp_path)
        caps = kvm_capabilities.Probe(rt, path)
        assert (caps.path, caps.machine, caps.sandbox) == (path, "pc-i440fx-7.2", True)
        calls = len(rt.processes.calls)
        assert kvm_capabilities.Probe(rt, path) is caps
        assert len(rt.processes.calls) == calls
        os.utime(path, (1, 1))
        assert kvm_capabilities.Probe(rt, path) is not caps

    def test_too_old(self, tmp_path):
        with pytest.raises(errors.HypervisorError, match=r"version 5\.2\.0, at least 6\.0"):
            kvm_capabilities.Probe(self._Runtime("5.2.0"), self._Binary(tmp_path))

    def test_broken(self, tmp_path):
        rt = fake.NewRuntime()
        rt.processes.Answer("*", code=127, stderr="libfoo.so: not found")
        with pytest.raises(errors.HypervisorError, match="libfoo"):
            kvm_capabilities.Probe(rt, self._Binary(tmp_path))

    def test_find(self, tmp_path):
        wrapper = self._Binary(tmp_path, "kvm", b"#!/bin/sh\n")
        missing = str(tmp_path / "missing")
        real = self._Binary(tmp_path)
        assert kvm_capabilities.FindBinary((missing, wrapper, real)) == real
        with pytest.raises(errors.HypervisorError, match="not installed"):
            kvm_capabilities.FindBinary((missing, wrapper))


class TestProcesses:
    """BASE2: a running instance is recognised by its own command line, never by a number alone."""

    CMDLINE = "\0".join(_Build()).encode() + b"\0"

    def test_parse(self):
        found = kvm_files.ParseCommandLine(7, self.CMDLINE)
        assert found == kvm_files.QemuProcess(
            7, "inst1.example.com", 512, 2, "/R/pid/inst1.example.com"
        )

    @pytest.mark.parametrize(
        ("cmdline", "result"),
        [
            # Ganeti 2.1's own
            (b"kvm\0-name\0inst1\0-m\x00256\0-smp\x004\0", ("inst1", 256, 4)),
            (b"q\0-name\0guest=i,x=y\0-m\0size=64\0-smp\0cpus=2,cores=2\0", ("i", 64, 2)),
            (b"q\0-name\0i\0-m\0lots\0-smp\0", ("i", 0, 0)),
            (b"q\0-m\0256\0-name", None),
            (b"/bin/sh\0", None),
            (b"", None),
        ],
    )
    def test_odd(self, cmdline, result):
        found = kvm_files.ParseCommandLine(7, cmdline)
        assert (None if found is None else (found.name, found.memory, found.vcpus)) == result

    def _Node(self, tmp_path, pid_text, cmdline, name="inst1.example.com"):
        paths = kvm_files.Paths(name, str(tmp_path / "R"), "/L")
        os.makedirs(os.path.dirname(paths.pid))
        Path(paths.pid).write_text(pid_text)
        (tmp_path / "7").mkdir()
        (tmp_path / "7/cmdline").write_bytes(cmdline.replace(b"/R/", f"{tmp_path}/R/".encode()))
        return kvm_files.FindProcess(paths, proc=str(tmp_path))

    def test_found(self, tmp_path):
        assert self._Node(tmp_path, "7\n", self.CMDLINE).pid == 7

    @pytest.mark.parametrize(
        ("pid_text", "cmdline", "name"),
        [
            ("8\n", CMDLINE, "inst1.example.com"),
            ("", CMDLINE, "inst1.example.com"),
            # The number has been given to somebody else
            ("7\n", b"/bin/sh\0", "inst1.example.com"),
            ("7\n", CMDLINE, "inst1.example.co"),
            # The same instance, but of a neighbour on this machine
            ("7\n", CMDLINE.replace(b"/R/", b"/R2/"), "inst1.example.com"),
        ],
    )
    def test_not_ours(self, tmp_path, pid_text, cmdline, name):
        assert self._Node(tmp_path, pid_text, cmdline, name) is None


class TestNetworkSetup:
    """PR4: what is done to connect a card."""

    @pytest.mark.parametrize(
        ("nic", "commands"),
        [
            (
                kvm_net.NicSpec("aa:0", None, "bridged", "xen-br0"),
                ["ip link set dev tap3 up", "ip link set dev tap3 master xen-br0"],
            ),
            (
                kvm_net.NicSpec("aa:0", "192.0.2.9", "routed", "100"),
                [
                    "ip link set dev tap3 up",
                    "ip rule add dev tap3 table 100",
                    "ip route replace 192.0.2.9 table 100 proto static dev tap3",
                ],
            ),
            (
                kvm_net.NicSpec("aa:0", "192.0.2.9", "routed", None),
                ["ip link set dev tap3 up", "ip route replace 192.0.2.9 proto static dev tap3"],
            ),
        ],
    )
    def test_commands(self, nic, commands):
        done = kvm_net.SetupCommands(nic, "tap3", "inst1", ip_path="ip")
        assert [" ".join(argv) for argv in done] == commands

    @pytest.mark.parametrize(
        ("nic", "text"),
        [
            (kvm_net.NicSpec("aa:0", None, "routed", "100"), "needs an IP"),
            (kvm_net.NicSpec("aa:0", None, "bridged", None), "no link"),
            (kvm_net.NicSpec("aa:0", None, "ovs", "x"), "'ovs'"),
        ],
    )
    def test_impossible(self, nic, text):
        with pytest.raises(errors.HypervisorError, match=text):
            kvm_net.SetupCommands(nic, "tap3", "inst1")

    @staticmethod
    def _Rules(*interfaces):
        """A node with these interfaces' rules, and the log of its commands."""
        rt = fake.NewRuntime()
        rt.processes.Answer("*")
        left, run = list(interfaces), rt.processes.run

        def _Run(argv, **kwargs):
            result = run(argv, **kwargs)
            if argv[1:3] != ["rule", "del"]:
                return result
            if argv[-1] not in left:
                return type(result)(cmd=result.cmd, exit_code=2)
            left.remove(argv[-1])
            return result

        rt.processes.run = _Run
        return rt, left

    @pytest.mark.parametrize("mode", ["routed", "bridged"])
    def test_rules_of_the_former_owner_are_deleted(self, tmp_path, mode):
        rt, left = self._Rules("no-such-tap", "no-such-tap", "tap4")
        nic = kvm_net.NicSpec("aa:0", "192.0.2.9", mode, "100")
        lock = str(tmp_path / "lock")
        kvm_net.Setup(rt, "inst1", [], nic, "no-such-tap", lock, script="/no/script")
        assert left == ["tap4"]
        done = [call.argv[2] for call in rt.processes.calls]
        assert done[:4] == ["del", "del", "del", "set"]
        assert done[4:] == (["add", "replace"] if mode == "routed" else ["set"])

    def test_clean_up_spares_whom_the_name_belongs_to_by_now(self, tmp_path):
        rt, left = self._Rules("tap1", "tap2", "tap2")
        (tmp_path / "tap1").mkdir()
        kvm_net.CleanUp(rt, ["tap1", "tap2"], str(tmp_path / "lock"), sysfs=str(tmp_path))
        assert left == ["tap1"]

    def test_failure_names_the_command(self, tmp_path):
        rt = fake.NewRuntime()
        rt.processes.Answer("* rule del *", code=2)
        rt.processes.Answer("* master *", code=2, stderr="Cannot find device xen-br0")
        rt.processes.Answer("* up")
        nic = kvm_net.NicSpec("aa:0", None, "bridged", "xen-br0")
        with pytest.raises(errors.HypervisorError, match=r"inst1.*master xen-br0.*Cannot find"):
            kvm_net.Setup(rt, "inst1", [], nic, "tap3", str(tmp_path / "lock"), script="/no/script")

    def test_script_environment(self):
        nic = kvm_net.NicSpec.FromDict(
            {"mac": "aa:0", "ip": "192.0.2.9", "nicparams": {"mode": "bridged", "link": "br7"}}
        )
        env = kvm_net.ScriptEnvironment("inst1", ["a", "b"], nic, "tap3")
        assert env.pop("PATH").endswith("/sbin:/bin")
        assert env == {
            "INSTANCE": "inst1",
            "MAC": "aa:0",
            "IP": "192.0.2.9",
            "MODE": "bridged",
            "LINK": "br7",
            "BRIDGE": "br7",
            "INTERFACE": "tap3",
            "TAGS": "a b",
        }
        routed = kvm_net.NicSpec("aa:0", None, "routed", None)
        env = kvm_net.ScriptEnvironment("inst1", [], routed, "tap3")
        assert not {"IP", "LINK", "BRIDGE", "TAGS"} & set(env)

    def test_only_virtual_nodes_do_without_taps(self, monkeypatch):
        nics = [kvm_net.NicSpec("aa:0", None, "bridged", "no-such-bridge")]
        assert kvm_net.UserNetworkReason(nics) is not None
        assert kvm_net.UserNetworkReason([]) is None
        monkeypatch.setattr(pathutils, "IsVirtual", lambda: False)
        assert kvm_net.UserNetworkReason(nics) is None
