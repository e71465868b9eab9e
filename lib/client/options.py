"""Options that commands share: one declaration each, from which parsing, help, completion and
manual pages come.

An option that only one command has is declared beside that command, in the same form.
"""

from __future__ import annotations

from typing import Any, Final

from .. import constants

# What completion offers as value
COMPLETE_NODE: Final = "node"
COMPLETE_NODES: Final = "node:node"
COMPLETE_INSTANCE: Final = "instance"
COMPLETE_OS: Final = "os"
COMPLETE_IALLOCATOR: Final = "iallocator"
COMPLETE_FILE: Final = "file"

# Kinds of values beside those of optparse; L{parser} has their meaning.
TYPE_UNIT: Final = "unit"
TYPE_BOOL: Final = "bool"
TYPE_KEYVAL: Final = "keyval"
TYPE_IDENTKEYVAL: Final = "identkeyval"

#: Seconds that a guest gets to stop by itself.
_SHUTDOWN_TIMEOUT: Final = 120


class Opt:
    """The declaration of an option.

    @ivar flags: e.g. C{-f} and C{--force}
    @ivar settings: as for C{optparse.Option}: action, type, default, metavar, help, choices, dest
    @ivar complete: what its value is, for completion (C{COMPLETE_*}), None if it is nothing known
    """

    __slots__ = ("complete", "flags", "settings")

    def __init__(self, *flags: str, complete: str | None = None, **settings: Any) -> None:
        self.flags = flags
        self.settings = settings
        self.complete = complete

    def With(self, **settings: Any) -> Opt:
        """The same option with some settings different."""
        return Opt(*self.flags, complete=self.complete, **{**self.settings, **settings})

    @property
    def dest(self) -> str:
        """Attribute of the parsed options that has the value."""
        given = self.settings.get("dest")
        if given is not None:
            return str(given)
        long = next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])
        return long.lstrip("-").replace("-", "_")

    @property
    def repeatable(self) -> bool:
        """Does each use add a value?"""
        return self.settings.get("action") == "append"

    @property
    def takes_value(self) -> bool:
        """Is there a value after it?"""
        return self.settings.get("action", "store") in ("store", "append")


def Flag(*flags: str, help: str, **settings: Any) -> Opt:  # noqa: A002 - as optparse calls it
    """An option without value, off by default."""
    return Opt(*flags, **{"action": "store_true", "default": False, "help": help, **settings})


def Repeated(*flags: str, help: str, **settings: Any) -> Opt:  # noqa: A002 - as above
    """An option that may be given several times; its value is the list."""
    return Opt(*flags, **{"action": "append", "default": [], "help": help, **settings})


# Every command

DEBUG_OPT: Final = Opt(
    "-d", "--debug", action="count", default=0,
    help="Log to standard error as well; more of it each time it is given",
)  # fmt: skip
DRY_RUN_OPT: Final = Flag(
    "--dry-run",
    help="Do not execute the operation, only check whether it could be executed",
)

# Commands that submit jobs

SUBMIT_OPT: Final = Flag(
    "--submit",
    dest="submit_only",
    help="Submit the job and return immediately; its id goes to standard error",
)
PRINT_JOBID_OPT: Final = Flag(
    "--print-jobid", help="Print the job's id on standard output as its first line"
)
PRIORITY_OPT: Final = Opt(
    "--priority",
    default=None,
    choices=["low", "normal", "high"],
    metavar="low|normal|high",
    help="Place of the job among those that wait",
)
#: What every command with a job of its own takes.
JOB_OPTS: Final = (SUBMIT_OPT, PRINT_JOBID_OPT, PRIORITY_OPT)

# Listings

NOHDR_OPT: Final = Flag("--no-headers", help="Don't display column headers")
SEP_OPT: Final = Opt(
    "--separator", default=None, metavar="SEPARATOR",
    help="Text between the fields of a line, which are not aligned then",
)  # fmt: skip
USEUNITS_OPT: Final = Opt(
    "--units", default=None, choices=["h", "m", "g", "t"], metavar="h|m|g|t",
    help="Unit of sizes: best fitting one (h), MiB, GiB or TiB",
)  # fmt: skip
FIELDS_OPT: Final = Opt(
    "-o", "--output", default=None, metavar="FIELDS",
    help="Comma separated list of output fields; with '+' in front they are added to the default",
)  # fmt: skip
FORMAT_OPT: Final = Opt(
    "--format", dest="output_format", default="table", choices=["table", "json"],
    metavar="table|json",
    help="Print a table for people, or JSON: a list of objects with the fields' raw values",
)  # fmt: skip
JSON_OPT: Final = Flag("--json", dest="as_json", help="Print JSON for programs")
SYNC_OPT: Final = Flag("--sync", dest="do_locking", help="Accepted for old scripts, without effect")
ROMAN_OPT: Final = Flag("--roman", dest="roman_integers", help="Print numbers as Roman numerals")
#: What every listing takes.
LIST_OPTS: Final = (NOHDR_OPT, SEP_OPT, FIELDS_OPT, FORMAT_OPT)

# Confirmation

FORCE_OPT: Final = Flag("-f", "--force", help="Force the operation, ask no questions")
CONFIRM_OPT: Final = Flag("--yes", dest="confirm", help="Do not ask for confirmation")
VERBOSE_OPT: Final = Flag("-v", "--verbose", help="Print more about what is done")

# Where

NODE_LIST_OPT: Final = Repeated(
    "-n", "--node", dest="nodes", metavar="NODE", complete=COMPLETE_NODE,
    help="Only on this node (can be given multiple times; if not given, on all nodes)",
)  # fmt: skip
SINGLE_NODE_OPT: Final = Opt(
    "-n", "--node", default=None, metavar="NODE", complete=COMPLETE_NODE, help="Target node"
)
MOVE_TARGET_OPT: Final = Opt(
    "-n", "--target-node", dest="node", default=None, metavar="NODE", complete=COMPLETE_NODE,
    help="Where instances go whose disks are the same on all nodes",
)  # fmt: skip
NODE_PLACEMENT_OPT: Final = Opt(
    "-n", "--node", default=None, metavar="PNODE[:SNODE]", complete=COMPLETE_NODES,
    help="Primary and, for a mirrored instance, secondary node",
)  # fmt: skip
NEW_SECONDARY_OPT: Final = Opt(
    "-n", "--new-secondary", dest="dst_node", default=None, metavar="NODE",
    complete=COMPLETE_NODE, help="New secondary node",
)  # fmt: skip
IALLOCATOR_OPT: Final = Opt(
    "-I", "--iallocator", default=None, metavar="NAME", complete=COMPLETE_IALLOCATOR,
    help="Let this allocator choose the nodes",
)  # fmt: skip
SECONDARY_IP_OPT: Final = Opt(
    "-s", "--secondary-ip", default=None, metavar="ADDRESS",
    help="Address for replication, if it is not the primary one",
)  # fmt: skip

# Instances

OS_OPT: Final = Opt(
    "-o", "--os-type", dest="os", default=None, metavar="OS", complete=COMPLETE_OS,
    help="Operating system, with its variant if it has any: name+variant",
)  # fmt: skip
FORCE_VARIANT_OPT: Final = Flag(
    "--force-variant", help="Accept a variant that the operating system does not list"
)
DISK_TEMPLATE_OPT: Final = Opt(
    "-t", "--disk-template", default=None, choices=list(sorted(constants.DISK_TEMPLATES)),
    metavar="TEMPLATE", help="Disk template (diskless, file, sharedfile, plain or drbd)",
)  # fmt: skip
DISK_OPT: Final = Repeated(
    "--disk", dest="disks", type=TYPE_IDENTKEYVAL, metavar="N:KEY=VALUE,...",
    help="Disk number N: size=, mode=, adopt=",
)  # fmt: skip
DISKIDX_OPT: Final = Opt(
    "--disks", default=None, metavar="LIST", help="Comma separated list of disk numbers"
)
OS_SIZE_OPT: Final = Opt(
    "-s", "--os-size", dest="sd_size", default=None, type=TYPE_UNIT, metavar="SIZE",
    help="Size of the only disk; short for --disk 0:size=SIZE",
)  # fmt: skip
NET_OPT: Final = Repeated(
    "--net", dest="nics", type=TYPE_IDENTKEYVAL, metavar="N:KEY=VALUE,...",
    help="Network interface number N: mac=, ip=, mode=, link=",
)  # fmt: skip
NONICS_OPT: Final = Flag("--no-nics", dest="no_nics", help="Create no network interface")
NOIPCHECK_OPT: Final = Flag(
    "--no-ip-check", action="store_false", default=True, dest="ip_check",
    help="Don't check that the instance's address is unused",
)  # fmt: skip
NONAMECHECK_OPT: Final = Flag(
    "--no-name-check", action="store_false", default=True, dest="name_check",
    help="Don't check that the instance's name is resolvable",
)  # fmt: skip
NWSYNC_OPT: Final = Flag(
    "--no-wait-for-sync", action="store_false", default=True, dest="wait_for_sync",
    help="Don't wait for the disks to be in sync",
)  # fmt: skip
IGNORE_CONSIST_OPT: Final = Flag(
    "--ignore-consistency", help="Go on although disks on the other node are not consistent"
)
EARLY_RELEASE_OPT: Final = Flag(
    "--early-release", help="Release the locks on the old secondary as early as possible"
)
SHUTDOWN_TIMEOUT_OPT: Final = Opt(
    "--shutdown-timeout", type="int", default=_SHUTDOWN_TIMEOUT, metavar="SECONDS",
    help="How long to wait for the instance to stop by itself",
)  # fmt: skip
NONLIVE_OPT: Final = Flag(
    "--non-live", action="store_false", default=True, dest="live",
    help="Do a non-live migration (the instance is frozen meanwhile)",
)  # fmt: skip
FILESTORE_DIR_OPT: Final = Opt(
    "--file-storage-dir", default=None, metavar="DIR",
    help="Directory of file disks, below that of the cluster", complete=COMPLETE_FILE,
)  # fmt: skip
FILESTORE_DRIVER_OPT: Final = Opt(
    "--file-driver", default="loop", choices=list(sorted(constants.FILE_DRIVER)),
    metavar="DRIVER", help="Driver of file disks (loop or blktap)",
)  # fmt: skip

# Parameters

BACKEND_OPT: Final = Opt(
    "-B", "--backend-parameters", dest="beparams", type=TYPE_KEYVAL, default={},
    metavar="KEY=VALUE,...", help="Backend parameters: memory=, vcpus=, auto_balance=",
)  # fmt: skip
HVOPTS_OPT: Final = Opt(
    "-H", "--hypervisor-parameters", dest="hvparams", type=TYPE_KEYVAL, default={},
    metavar="KEY=VALUE,...", help="Hypervisor parameters",
)  # fmt: skip
HYPERVISOR_OPT: Final = Opt(
    "-H", "--hypervisor-parameters", dest="hypervisor", type=TYPE_IDENTKEYVAL, default=None,
    metavar="HYPERVISOR[:KEY=VALUE,...]", help="Hypervisor and, if needed, its parameters",
)  # fmt: skip
HVLIST_OPT: Final = Repeated(
    "-H", "--hypervisor-parameters", dest="hvparams", type=TYPE_IDENTKEYVAL,
    metavar="HYPERVISOR:KEY=VALUE,...", help="Parameters of a hypervisor",
)  # fmt: skip
NIC_PARAMS_OPT: Final = Opt(
    "-N", "--nic-parameters", dest="nicparams", type=TYPE_KEYVAL, default={},
    metavar="KEY=VALUE,...", help="Default network parameters: mode=, link=",
)  # fmt: skip

# Tags

TAG_SRC_OPT: Final = Opt(
    "--from", dest="tags_source", default=None, metavar="FILE", complete=COMPLETE_FILE,
    help="File with one tag a line, '-' for standard input",
)  # fmt: skip
