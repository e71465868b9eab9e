"""What is kept about a running KVM guest: read back as it was, by other releases too."""

import json

import pytest

from ganeti import errors
from ganeti.hypervisor import kvm_runtime
from ganeti.hypervisor.kvm_command import DiskSpec, GuestSpec

GUEST = GuestSpec(
    name="inst1.example.com",
    uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
    memory=128,
    vcpus=2,
    disks=(DiskSpec("/disks/inst1:0", True, True), DiskSpec("/disks/inst1:1", False)),
    cdrom=DiskSpec("/srv/cd.iso", False),
    network_port=11005,
)
DATA = kvm_runtime.RuntimeData(
    GUEST, [{"mac": "aa:0"}], {"acpi": True}, "pc-i440fx-7.2", (7, 2, 22)
)
#: As a 2.1 node has it.
OLD = json.dumps(
    [
        ["/usr/bin/kvm", "-name", "inst1", "-m", "128", "-drive", "file=/x,if=virtio,boot=on"],
        [{"mac": "aa:0", "ip": None, "nicparams": {"mode": "bridged", "link": "xen-br0"}}],
        {"acpi": True, "disk_cache": "default"},
    ]
)


def _Never():
    raise AssertionError("the configuration is not needed")


class TestRuntimeFile:
    """BASE2: what a guest was started as comes back, whoever wrote it."""

    def test_round_trip(self):
        assert kvm_runtime.Decode(DATA.Encode(), {}, _Never) == DATA
        bare = kvm_runtime.RuntimeData(GuestSpec("i", None, 1, 1, ()), [], {})
        assert kvm_runtime.Decode(bare.Encode(), {}, _Never) == bare

    def test_no_command_line(self):
        """An upgraded QEMU may want other words for the same guest."""
        content = json.loads(DATA.Encode())
        assert sorted(content) == ["format", "guest", "hvparams", "machine", "nics", "qemu"]
        assert content["machine"] == "pc-i440fx-7.2"
        assert content["qemu"] == [7, 2, 22]
        assert not any("-name" in str(value) for value in content.values())

    def test_older_file_lacks_parameters(self):
        data = kvm_runtime.Decode(DATA.Encode(), {"acpi": False, "vhost_net": True}, _Never)
        assert data.hvparams == {"acpi": True, "vhost_net": True}
        only = kvm_runtime.DecodeHvParams(DATA.Encode(), {"acpi": False, "vhost_net": True})
        assert only == data.hvparams

    def test_newer_file_has_more(self):
        content = json.loads(DATA.Encode())
        content["later"] = content["guest"]["later"] = content["guest"]["disks"][0]["later"] = 1
        content["guest"]["cdrom"]["later"] = 1
        assert kvm_runtime.Decode(json.dumps(content), {}, _Never) == DATA

    def test_newer_file_lacks_what_has_a_default(self):
        content = json.loads(DATA.Encode())
        del content["guest"]["cdrom"], content["guest"]["disks"][0]["is_shared"]
        data = kvm_runtime.Decode(json.dumps(content), {}, _Never)
        assert data.guest.cdrom is None
        assert data.guest.disks[0] == DiskSpec("/disks/inst1:0", True)

    def test_from_2_1(self):
        """NICs and parameters are of the file, the rest of the configuration."""
        data = kvm_runtime.Decode(OLD, {"acpi": False, "vhost_net": False}, lambda: GUEST)
        assert data == kvm_runtime.RuntimeData(
            GUEST,
            [{"mac": "aa:0", "ip": None, "nicparams": {"mode": "bridged", "link": "xen-br0"}}],
            {"acpi": True, "disk_cache": "default", "vhost_net": False},
        )
        assert kvm_runtime.DecodeHvParams(OLD, {})["acpi"] is True

    @pytest.mark.parametrize(
        "words", [["-machine", "pc-1.0,acpi=on"], ["-M", "pc-1.0"], ["-machine", "type=pc-1.0"]]
    )
    def test_machine_of_a_command_line(self, words):
        text = json.dumps([["kvm", "-name", "i", *words], [], {}])
        assert kvm_runtime.Decode(text, {}, lambda: GUEST).machine == "pc-1.0"

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "[1,2,3]", "[[],[]]", '["a",[],{}]', "[[],[1],{}]", '{"guest": {}}', "null"],
    )
    def test_something_else(self, text):
        with pytest.raises(errors.HypervisorError, match="start-up data"):
            kvm_runtime.Decode(text, {}, lambda: GUEST)

    @pytest.mark.parametrize("part", ["guest", "nics", "hvparams", "machine", "qemu"])
    def test_part_is_missing(self, part):
        content = json.loads(DATA.Encode())
        del content[part]
        with pytest.raises(errors.HypervisorError, match=part):
            kvm_runtime.Decode(json.dumps(content), {}, _Never)
