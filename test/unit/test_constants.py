"""Values that other programs rely on, and what has to hold between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, pathutils


class TestVersions:
    @given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 9999))
    def test_build_and_split_invert_each_other(self, major, minor, revision):
        version = constants.BuildVersion(major, minor, revision)
        assert constants.SplitVersion(version) == (major, minor, revision)

    @pytest.mark.parametrize("parts", [(100, 0, 0), (0, 100, 0), (0, 0, 10000), (-1, 0, 0)])
    def test_out_of_range(self, parts):
        with pytest.raises(ValueError):
            constants.BuildVersion(*parts)

    def test_numbers_of_the_2_1_generation(self):
        assert constants.CONFIG_VERSION == 2010000
        assert constants.CONFIG_VERSION_20 == 2000000
        assert constants.PROTOCOL_VERSION == 30
        assert constants.RELEASE_VERSION == "2.1.8"
        assert {10, 15} <= constants.OS_API_VERSIONS
        assert constants.EXPORT_VERSION == 0


class TestRelations:
    def test_a_node_that_verify_accepts_can_ask_confd(self):
        assert constants.NODE_MAX_CLOCK_SKEW < 0.8 * constants.CONFD_MAX_CLOCK_SKEW

    def test_disk_states_are_ordered(self):
        assert constants.LDS_OKAY < constants.LDS_UNKNOWN < constants.LDS_FAULTY
        assert (constants.LDS_OKAY, constants.LDS_FAULTY) == (1, 3)
        assert set(constants.LDS_NAMES) == {1, 2, 3}

    def test_certificates_warn_before_they_are_an_error(self):
        assert constants.SSL_CERT_EXPIRATION_ERROR < constants.SSL_CERT_EXPIRATION_WARN

    def test_a_wait_for_a_job_change_ends_before_the_client_gives_up(self):
        assert constants.LUXI_WFJC_TIMEOUT == 29
        assert constants.LUXI_WFJC_TIMEOUT < constants.LUXI_DEF_RWTO

    def test_queue_limits(self):
        assert constants.JOB_QUEUE_SIZE_HARD_LIMIT == 5000
        assert constants.JOB_QUEUE_SIZE_SOFT_LIMIT == 4000

    def test_disk_templates(self):
        assert constants.DTS_NET_MIRROR | constants.DTS_NOT_LVM < constants.DISK_TEMPLATES
        assert constants.DISK_TEMPLATES - {constants.DT_DISKLESS} == constants.DTS_GROWABLE

    def test_every_daemon_has_a_log_file(self):
        assert set(constants.DAEMONS) < set(pathutils.DAEMONS_LOGFILES)
        assert constants.DAEMONS_PORTS[constants.NODED] == ("tcp", 1811)
        assert constants.DAEMONS_PORTS[constants.CONFD] == ("udp", 1814)

    def test_codes_of_verify_are_unique(self):
        codes = [
            value[1]
            for name, value in vars(constants).items()
            if name.startswith("CV_E") and isinstance(value, tuple)
        ]
        assert len(codes) == len(set(codes)) == 21
        kinds = {constants.CV_TCLUSTER, constants.CV_TNODE, constants.CV_TINSTANCE}
        for name, value in vars(constants).items():
            if isinstance(value, tuple) and name.startswith("CV_E"):
                assert value[0] in kinds
                assert name == "CV_" + value[1]

    @pytest.mark.parametrize("text", ["create", "a-b_c9"])
    def test_plugin_names(self, text):
        assert constants.EXT_PLUGIN_MASK.match(text)

    @pytest.mark.parametrize("text", ["", "a.b", "a\n", "a/b", ".a", "ä"])
    def test_no_plugin_names(self, text):
        assert not constants.EXT_PLUGIN_MASK.match(text)


class TestConfd:
    """CF2: numbers of the confd protocol."""

    def test_numbers(self):
        assert len(constants.CONFD_MAGIC_FOURCC) == 4
        assert set(range(7)) == constants.CONFD_REQS
        assert set(range(3)) == constants.CONFD_REPL_STATUSES
        roles = [
            getattr(constants, "CONFD_NODE_ROLE_" + name)
            for name in ("MASTER", "CANDIDATE", "OFFLINE", "DRAINED", "REGULAR")
        ]
        assert roles == [0, 1, 2, 3, 4]
        assert constants.CONFD_ERROR_UNKNOWN_ENTRY == 1
        assert constants.CONFD_ERROR_INTERNAL == 2
        assert constants.CONFD_ERROR_ARGUMENT == 3


class TestParameters:
    """PR1: the tables of parameters hold what release 2.1 has."""

    #: hypervisor -> parameters with the defaults of release 2.1
    HV = {
        "xen-pvm": {
            "use_bootloader": False,
            "bootloader_path": "",
            "bootloader_args": "",
            "kernel_path": "/boot/vmlinuz-2.6-xenU",
            "initrd_path": "",
            "root_path": "/dev/sda1",
            "kernel_args": "ro",
            "blockdev_prefix": "sd",  # of later releases
            "migration_port": 8002,
        },
        "xen-hvm": {
            "boot_order": "cd",
            "cdrom_image_path": "",
            "nic_type": "rtl8139",
            "disk_type": "paravirtual",
            "vnc_bind_address": "0.0.0.0",
            "vnc_password_file": pathutils.VNC_PASSWORD_FILE,
            "acpi": True,
            "pae": True,
            "kernel_path": "/usr/lib/xen/boot/hvmloader",
            "device_model": "/usr/lib/xen/bin/qemu-dm",
            "migration_port": 8002,
            "use_localtime": False,
        },
        "kvm": {
            "kernel_path": "/boot/vmlinuz-2.6-kvmU",
            "initrd_path": "",
            "kernel_args": "ro",
            "root_path": "/dev/vda1",
            "acpi": True,
            "serial_console": True,
            "vnc_bind_address": "",
            "vnc_tls": False,
            "vnc_x509_verify": False,
            "vnc_x509_path": "",
            "vnc_password_file": "",
            "cdrom_image_path": "",
            "boot_order": "disk",
            "nic_type": "paravirtual",
            "disk_type": "paravirtual",
            "usb_mouse": "",
            "migration_port": 8102,
            "migration_bandwidth": 32,
            "migration_downtime": 30,
            "use_localtime": False,
            "disk_cache": "default",
            "security_model": "none",
            "security_domain": "",
            "kvm_flag": "",
            "vhost_net": False,
            "use_chroot": False,
        },
        "fake": {},
        "chroot": {"init_script": "/ganeti-chroot"},
    }

    def test_hypervisor_defaults(self):
        assert constants.HVC_DEFAULTS == self.HV
        assert set(self.HV) == constants.HYPER_TYPES

    def test_hypervisor_types(self):
        bools = {
            "vnc_tls",
            "vnc_x509_verify",
            "acpi",
            "pae",
            "use_bootloader",
            "serial_console",
            "use_localtime",
            "vhost_net",
            "use_chroot",
        }
        ints = {"migration_port", "migration_bandwidth", "migration_downtime"}
        names = {name for params in self.HV.values() for name in params}
        assert dict(constants.HVS_PARAMETER_TYPES) == {
            name: "bool" if name in bools else "int" if name in ints else "string" for name in names
        }

    def test_backend(self):
        assert constants.BEC_DEFAULTS == {"memory": 128, "vcpus": 1, "auto_balance": True}
        assert constants.BES_PARAMETER_TYPES == {
            "memory": "size",
            "vcpus": "int",
            "auto_balance": "bool",
        }

    def test_nic(self):
        assert constants.NICC_DEFAULTS == {"mode": "bridged", "link": "xen-br0"}
        assert constants.NICS_PARAMETER_TYPES == {"mode": "string", "link": "string"}

    def test_disk(self):
        assert constants.DPC_DEFAULTS == {
            "stripe": 1,
            "stripe_size": 0,
            "meta_flushes": True,
            "data_flushes": True,
        }
        assert constants.DPS_PARAMETER_TYPES == {
            "stripe": "int",
            "stripe_size": "int",
            "meta_flushes": "bool",
            "data_flushes": "bool",
        }

    def test_no_disk_parameter_hides_a_property_of_a_new_disk(self):
        assert not constants.DPS_PARAMETERS & constants.IDISK_PARAMS

    def test_every_name_is_fit_for_a_variable(self):
        for name in (
            constants.HVS_PARAMETERS
            | constants.BES_PARAMETERS
            | constants.NICS_PARAMETERS
            | constants.DPS_PARAMETERS
        ):
            assert constants.PARAMETER_NAME_RE.match(name)


class TestTransitions:
    """JQ1: the only ways of an opcode through its states."""

    def test_ends_are_ends(self):
        for (status, _event), target in constants.OP_TRANSITIONS.items():
            assert status not in constants.OPS_FINALIZED
            assert target != status

    def test_only_known_states_and_all_of_them(self):
        seen = set()
        for (status, _event), target in constants.OP_TRANSITIONS.items():
            seen |= {status, target}
        assert seen == constants.OP_STATUS_ALL

    def test_every_event_is_used(self):
        events = {value for name, value in vars(constants).items() if name.startswith("OP_EVENT_")}
        assert {event for _status, event in constants.OP_TRANSITIONS} == events

    def test_every_state_can_reach_an_end(self):
        reach = set(constants.OPS_FINALIZED)
        for _round in constants.OP_STATUS_ALL:
            reach |= {
                status
                for (status, _), target in constants.OP_TRANSITIONS.items()
                if target in reach
            }
        assert reach == constants.OP_STATUS_ALL

    @pytest.mark.parametrize(
        ("status", "later"),
        [
            # From running there is no way back to queued: no opcode runs twice
            ("running", {"success", "error", "canceling", "canceled"}),
            # What was cancelled can not start after all; what can be interrupted may end before
            ("canceling", {"canceled", "error", "success"}),
            (
                "waiting",
                {"queued", "waiting", "running", "canceling"} | {"canceled", "error", "success"},
            ),
        ],
    )
    def test_what_can_still_come(self, status, later):
        after = set()
        todo = {status}
        while todo:
            now = todo.pop()
            found = {
                target for (source, _), target in constants.OP_TRANSITIONS.items() if source == now
            }
            todo |= found - after
            after |= found
        assert after == later

    def test_words_on_disk(self):
        assert {
            "queued",
            "waiting",
            "canceling",
            "running",
            "canceled",
            "success",
            "error",
        } == constants.OP_STATUS_ALL
        assert constants.JOB_STATUS_WAITLOCK == "waiting"


def test_error_codes_are_in_errors_alone():
    assert not [name for name in vars(constants) if name.startswith("ECODE_")]
    assert errors.ECODE_INVAL == "wrong_input"
