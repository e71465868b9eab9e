"""Checks of hypervisor parameters, on the master and on a node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import _paramtables, constants, errors, hvparams, pathutils

KVM = constants.HT_KVM
HVM = constants.HT_XEN_HVM
PVM = constants.HT_XEN_PVM
CHROOT = constants.HT_CHROOT
FAKE = constants.HT_FAKE


def Filled(kind, **changes):
    """Parameters as they reach a check: defaults, with some changes."""
    return {**constants.HVC_DEFAULTS[kind], **changes}


def SystemWith(files=(), dirs=(), users=()):
    return hvparams.System(
        frozenset(files).__contains__, frozenset(dirs).__contains__, frozenset(users).__contains__
    )


class TestTable:
    """PR1: one table of all parameters, and it is sound."""

    def test_a_name_has_one_type_everywhere(self):
        for kind, table in _paramtables.HV_PARAMS.items():
            for param in table:
                assert constants.HVS_PARAMETER_TYPES[param.name] == param.vtype, (kind, param)

    def test_a_name_stands_once_per_hypervisor(self):
        for table in _paramtables.HV_PARAMS.values():
            names = [param.name for param in table]
            assert len(names) == len(set(names))

    def test_a_required_parameter_is_no_bool_since_false_looks_unset(self):
        for table in hvparams.TABLES.values():
            for check in table.values():
                assert not (check.param.required and check.param.vtype == constants.VTYPE_BOOL)

    def test_every_parameter_is_described(self):
        rows = [param for table in _paramtables.HV_PARAMS.values() for param in table]
        rows += [*_paramtables.BE_PARAMS, *_paramtables.NIC_PARAMS, *_paramtables.DISK_PARAMS]
        for param in rows:
            assert len(param.doc) > 10
            assert param.check in _paramtables.CHECK_KINDS
            assert param.vtype in constants.ENFORCEABLE_TYPES
            assert bool(param.choices) == (
                param.check in (_paramtables.CHECK_CHOICE, _paramtables.CHECK_LETTERS)
            )

    def test_global_is_global_in_every_hypervisor(self):
        for table in _paramtables.HV_PARAMS.values():
            for param in table:
                assert param.is_global == (param.name in hvparams.GLOBALS)
        assert set(hvparams.GLOBALS) == {"migration_port", "migration_bandwidth"}

    @pytest.mark.parametrize("kind", sorted(constants.HYPER_TYPES))
    def test_defaults_pass_their_own_checks(self, kind):
        hvparams.CheckParameterSyntax(kind, constants.HVC_DEFAULTS[kind])


GOOD = [
    (PVM, {"initrd_path": "/boot/initrd"}),
    (PVM, {"migration_port": 1}),
    (PVM, {"migration_port": 65534}),
    (PVM, {"use_bootloader": True, "bootloader_path": "/usr/bin/pygrub"}),
    (PVM, {"bootloader_args": "-q", "kernel_args": ""}),
    (PVM, {"blockdev_prefix": "xvd"}),
    (HVM, {"boot_order": "acdn"}),
    (HVM, {"boot_order": "n"}),
    (HVM, {"vnc_bind_address": ""}),
    (HVM, {"nic_type": "paravirtual", "disk_type": "ioemu"}),
    (KVM, {"kernel_path": "", "root_path": ""}),
    (KVM, {"vnc_bind_address": "127.0.0.1"}),
    (KVM, {"vnc_bind_address": "/var/run/vnc"}),
    (KVM, {"boot_order": "cdrom", "cdrom_image_path": "/srv/cd.iso"}),
    (KVM, {"vnc_x509_verify": True, "vnc_x509_path": "/etc/x509"}),
    (KVM, {"security_model": "user", "security_domain": "joe"}),
    (KVM, {"security_model": "pool"}),
    (KVM, {"usb_mouse": "tablet", "kvm_flag": "disabled"}),
    (CHROOT, {"init_script": "/sbin/start"}),
    (FAKE, {}),
]

# hypervisor, changes, what the message must name
BAD = [
    (PVM, {"kernel_path": ""}, "kernel_path"),
    (PVM, {"kernel_path": "boot/vmlinuz"}, "boot/vmlinuz"),
    (PVM, {"kernel_path": "/boot/../vmlinuz"}, "kernel_path"),
    (PVM, {"root_path": ""}, "root_path"),
    (PVM, {"migration_port": 0}, "migration_port"),
    (PVM, {"migration_port": 65535}, "65535"),
    (PVM, {"migration_port": -1}, "migration_port"),
    (PVM, {"migration_port": "8002"}, "migration_port"),
    (PVM, {"migration_port": True}, "migration_port"),
    (PVM, {"acpi": True}, "acpi"),
    (PVM, {"use_bootloader": True}, "bootloader_path"),
    (PVM, {"bootloader_path": "pygrub"}, "bootloader_path"),
    (PVM, {"initrd_path": "initrd"}, "initrd_path"),
    (PVM, {"blockdev_prefix": ""}, "blockdev_prefix"),
    (PVM, {"blockdev_prefix": "hd"}, "xvd"),
    (HVM, {"cdrom_image_path": "cd.iso"}, "cdrom_image_path"),
    (HVM, {"kernel_path": ""}, "kernel_path"),
    (HVM, {"nic_type": ""}, "nic_type"),
    (HVM, {"disk_type": ""}, "disk_type"),
    (HVM, {"device_model": ""}, "device_model"),
    (HVM, {"migration_port": 0}, "migration_port"),
    (HVM, {"use_bootloader": True}, "use_bootloader"),
    (HVM, {"boot_order": ""}, "boot_order"),
    (HVM, {"boot_order": "cdx"}, "acdn"),
    (HVM, {"nic_type": "e1000"}, "rtl8139"),
    (HVM, {"disk_type": "scsi"}, "ioemu"),
    (HVM, {"vnc_bind_address": "300.1.1.1"}, "vnc_bind_address"),
    (HVM, {"vnc_bind_address": "/var/run"}, "IPv4"),
    (HVM, {"vnc_password_file": ""}, "vnc_password_file"),
    (HVM, {"device_model": "qemu"}, "device_model"),
    (KVM, {"vnc_bind_address": "node1"}, "vnc_bind_address"),
    (KVM, {"boot_order": "floppy"}, "disk"),
    (KVM, {"boot_order": "cdrom"}, "cdrom_image_path"),
    (KVM, {"root_path": ""}, "root_path"),
    (KVM, {"vnc_x509_verify": True}, "vnc_x509_path"),
    (KVM, {"security_model": "user"}, "security_domain"),
    (KVM, {"security_model": "none", "security_domain": "joe"}, "security_domain"),
    (KVM, {"security_model": "pool", "security_domain": "joe"}, "pool"),
    (KVM, {"security_model": "root"}, "security_model"),
    (KVM, {"disk_cache": "unsafe"}, "writeback"),
    (KVM, {"nic_type": ""}, "nic_type"),
    (KVM, {"usb_mouse": "trackball"}, "tablet"),
    (KVM, {"kvm_flag": "maybe"}, "enabled"),
    (CHROOT, {"init_script": "start"}, "init_script"),
    (CHROOT, {"init_script": ""}, "init_script"),
    (CHROOT, {"init_script": "/a/../b"}, "init_script"),
    (CHROOT, {"kernel_path": "/k"}, "kernel_path"),
    (FAKE, {"acpi": True}, "acpi"),
]


class TestSyntax:
    """PR1: unknown and wrong parameters are refused by name."""

    @pytest.mark.parametrize(("kind", "changes"), GOOD)
    def test_good(self, kind, changes):
        hvparams.CheckParameterSyntax(kind, Filled(kind, **changes))

    @pytest.mark.parametrize(("kind", "changes", "named"), BAD)
    def test_bad(self, kind, changes, named):
        with pytest.raises(errors.HypervisorError) as info:
            hvparams.CheckParameterSyntax(kind, Filled(kind, **changes))
        assert named in str(info.value)
        assert kind in str(info.value)

    @pytest.mark.parametrize("kind", sorted(constants.HYPER_TYPES))
    def test_every_parameter_must_be_there(self, kind):
        for name in constants.HVC_DEFAULTS[kind]:
            params = Filled(kind)
            del params[name]
            with pytest.raises(errors.HypervisorError, match=f"'{name}' is missing"):
                hvparams.CheckParameterSyntax(kind, params)

    def test_unknown_hypervisor(self):
        with pytest.raises(errors.HypervisorError, match="Unknown hypervisor 'vbox'.*xen-pvm"):
            hvparams.CheckParameterSyntax("vbox", {})

    @given(
        st.sampled_from(sorted(constants.HYPER_TYPES)),
        st.dictionaries(
            st.sampled_from(sorted(constants.HVS_PARAMETERS)),
            st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.text()),
            max_size=3,
        ),
    )
    def test_any_value_is_accepted_or_refused_with_its_name(self, kind, changes):
        try:
            hvparams.CheckParameterSyntax(kind, Filled(kind, **changes))
        except errors.HypervisorError as err:
            text = str(err)
            assert any(name in text for name in changes) or "security_domain" in text


class TestValidation:
    """What only a node can know: are the files, directories and accounts there?"""

    def test_everything_there(self):
        params = Filled(
            KVM,
            kernel_path="/boot/k",
            vnc_x509_path="/etc/x509",
            security_model="user",
            security_domain="joe",
        )
        hvparams.ValidateParameters(KVM, params, SystemWith(["/boot/k"], ["/etc/x509"], ["joe"]))

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"kernel_path": "/boot/missing"}, "/boot/missing"),
            ({"kernel_path": "/boot/k", "vnc_x509_path": "/boot/k"}, "vnc_x509_path"),
            (
                {"kernel_path": "", "security_model": "user", "security_domain": "nobody2"},
                "nobody2",
            ),
        ],
    )
    def test_missing(self, changes, named):
        with pytest.raises(errors.HypervisorError, match=named):
            hvparams.ValidateParameters(KVM, Filled(KVM, **changes), SystemWith(["/boot/k"]))

    @pytest.mark.parametrize(
        ("kind", "optional", "files"),
        [
            (PVM, {"initrd_path": "/i", "bootloader_path": "/b"}, ["kernel_path"]),
            (
                HVM,
                {"cdrom_image_path": "/cd"},
                ["kernel_path", "device_model", "vnc_password_file"],
            ),
        ],
    )
    def test_files_of_xen(self, kind, optional, files):
        """Each file that is named must be there, and no other one."""
        params = Filled(kind, **optional)
        there = {params[name] for name in [*files, *optional]}
        hvparams.ValidateParameters(kind, params, SystemWith(there))
        for name in [*files, *optional]:
            with pytest.raises(errors.HypervisorError, match=f"'{name}'.*no such file"):
                hvparams.ValidateParameters(kind, params, SystemWith(there - {params[name]}))
        for name in optional:
            hvparams.ValidateParameters(
                kind, {**params, name: ""}, SystemWith(there - {params[name]})
            )

    def test_empty_optional_files_are_not_looked_for(self):
        hvparams.ValidateParameters(KVM, Filled(KVM, kernel_path=""), SystemWith())

    def test_a_script_inside_of_the_guest_is_not_looked_for(self):
        hvparams.ValidateParameters(CHROOT, Filled(CHROOT), SystemWith())

    def test_on_this_machine(self, tmp_path):
        image = tmp_path / "cd.iso"
        params = Filled(KVM, kernel_path="", cdrom_image_path=str(image))
        with pytest.raises(errors.HypervisorError, match="cdrom_image_path"):
            hvparams.ValidateParameters(KVM, params)
        image.write_bytes(b"")
        hvparams.ValidateParameters(KVM, params)
        params.update(security_model="user", security_domain="root")
        hvparams.ValidateParameters(KVM, params)


class TestGlobals:
    """PR3: parameters of the whole cluster can not be set for an instance."""

    def test_refused_by_name(self):
        with pytest.raises(errors.OpPrereqError) as info:
            hvparams.CheckNoGlobals({"migration_port": 1, "acpi": True, "migration_bandwidth": 2})
        assert info.value.args[1] == errors.ECODE_INVAL
        assert "migration_bandwidth, migration_port" in info.value.args[0]

    def test_the_downtime_is_no_global(self):
        hvparams.CheckNoGlobals({"migration_downtime": 1, "acpi": True})


class TestAncillaryFiles:
    """PR2, RC1: files that hypervisors name, and all VNC password files in use."""

    def test_password_files_of_cluster_and_instances(self):
        params = [Filled(KVM), Filled(KVM, vnc_password_file="/etc/b"), {"vnc_password_file": "/a"}]
        files = hvparams.GetAncillaryFiles(KVM, params)
        assert files == sorted(["/a", "/etc/b", pathutils.KVM_NETWORK_SCRIPT])

    def test_without_instances(self):
        assert pathutils.VNC_PASSWORD_FILE in hvparams.GetAncillaryFiles(HVM)
        assert hvparams.GetAncillaryFiles(FAKE) == []

    def test_xen(self):
        """The file of xl, and what old clusters had for xm."""
        for kind in (PVM, HVM):
            files = set(hvparams.GetAncillaryFiles(kind))
            assert files >= {
                "/etc/xen/xl.conf",
                "/etc/xen/xend-config.sxp",
                "/etc/xen/scripts/vif-bridge",
            }
            assert (pathutils.VNC_PASSWORD_FILE in files) == (kind == HVM)
        assert hvparams.GetAncillaryFiles(CHROOT) == []

    def test_every_hypervisor_has_an_entry(self):
        assert set(hvparams.ANCILLARY_FILES) == constants.HYPER_TYPES
