"""Values that mean something on the wire, on disk, on the command line or for behaviour.

No paths: they are in L{pathutils}. No error codes: they are in L{errors}. The names, types and
defaults of the hypervisor, backend, NIC and disk parameters come from their table in
L{_paramtables}, whose names are offered here as well.
"""

# The names of the parameter tables come by a star: listing them again would say every fact twice.
# ruff: noqa: F403, F405

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from . import pathutils
from ._paramtables import *

# Versions

#: The release whose interfaces this suite has: cluster information, HTTP headers, ssconf, verify.
RELEASE_VERSION: Final = "2.1.8"
#: Node calls: nodes with another number are not talked to.
PROTOCOL_VERSION: Final = 30
OS_API_V10: Final = 10
OS_API_V15: Final = 15
OS_API_V20: Final = 20
OS_API_VERSIONS: Final = frozenset([OS_API_V10, OS_API_V15, OS_API_V20])
EXPORT_VERSION: Final = 0
RAPI_VERSION: Final = 2
HOOKS_VERSION: Final = 2
IALLOCATOR_VERSION: Final = 2
JOB_QUEUE_VERSION: Final = 1
CONFD_PROTOCOL_VERSION: Final = 1

CONFIG_MAJOR: Final = 2
CONFIG_MINOR: Final = 1
CONFIG_REVISION: Final = 0


def BuildVersion(major: int, minor: int, revision: int) -> int:
    """The number of a version: major and minor 0..99, revision 0..9999.

    @raise ValueError: a part is out of its range
    """
    if not (0 <= major <= 99 and 0 <= minor <= 99 and 0 <= revision <= 9999):
        raise ValueError(f"Version {major}.{minor}.{revision} has a part that is out of range")
    return major * 1000000 + minor * 10000 + revision


def SplitVersion(version: int) -> tuple[int, int, int]:
    """Major, minor and revision of a version number; the inverse of L{BuildVersion}."""
    major, rest = divmod(version, 1000000)
    minor, revision = divmod(rest, 10000)
    return major, minor, revision


#: The C{version} of config.data.
CONFIG_VERSION: Final = BuildVersion(CONFIG_MAJOR, CONFIG_MINOR, CONFIG_REVISION)
#: The C{version} of config.data that the upgrade tool accepts.
CONFIG_VERSION_20: Final = BuildVersion(2, 0, 0)

# Daemons

NODED: Final = "ganeti-noded"
MASTERD: Final = "ganeti-masterd"
RAPI: Final = "ganeti-rapi"
CONFD: Final = "ganeti-confd"
#: Reserved for a separate project: only its name and port are known here.
NLD: Final = "ganeti-nld"
#: In the order in which they start; they stop in reverse.
DAEMONS: Final = (NODED, MASTERD, RAPI, CONFD)
#: Protocol and default port; the services database may name another one.
DAEMONS_PORTS: Final[Mapping[str, tuple[str, int]]] = {
    NODED: ("tcp", 1811),
    RAPI: ("tcp", 5080),
    CONFD: ("udp", 1814),
    NLD: ("udp", 1816),
}
DEFAULT_NODED_PORT: Final = DAEMONS_PORTS[NODED][1]
DEFAULT_CONFD_PORT: Final = DAEMONS_PORTS[CONFD][1]
DEFAULT_RAPI_PORT: Final = DAEMONS_PORTS[RAPI][1]
#: Daemons that run several threads and so must not start programs themselves.
MULTITHREADED_DAEMONS: Final = frozenset([MASTERD])
DAEMONS_SSL: Final = frozenset([NODED, RAPI])

SYSLOG_NO: Final = "no"
SYSLOG_YES: Final = "yes"
SYSLOG_ONLY: Final = "only"
SYSLOG_VALUES: Final = (SYSLOG_NO, SYSLOG_YES, SYSLOG_ONLY)
SYSLOG_USAGE: Final[str] = pathutils.BuildValue("SYSLOG_USAGE", SYSLOG_NO)

BIND_ADDRESS_GLOBAL: Final = "0.0.0.0"
LOCALHOST_IP_ADDRESS: Final = "127.0.0.1"
#: One pool of ports for DRBD and VNC.
FIRST_DRBD_PORT: Final = 11000
LAST_DRBD_PORT: Final = 14999
VNC_BASE_PORT: Final = 5900

#: The user that owns the cluster, with the same name on every node.
GANETI_RUNAS: Final = "root"
#: Kind of the key that is made for that user, as ssh-keygen calls it.
SSH_USER_KEY_TYPE: Final = "ed25519"
#: Programs in a directory of scripts or plugins must be named like this.
EXT_PLUGIN_MASK: Final = re.compile("^[a-zA-Z0-9_-]+\\Z")
PGREP: Final = "pgrep"
SOCAT_ESCAPE_CODE: Final = "0x1d"
SOCAT_USE_ESCAPE: Final[bool] = pathutils.BuildValue("SOCAT_USE_ESCAPE", True)

# Exit codes

EXIT_SUCCESS: Final = 0
EXIT_FAILURE: Final = 1
#: A bad option or option value, or an unusable configuration.
EXIT_USAGE: Final = 2
EXIT_NOTCLUSTER: Final = 5
EXIT_NOTMASTER: Final = 11
EXIT_NODESETUP_ERROR: Final = 12
EXIT_CONFIRMATION: Final = 13

# Disks

DT_DISKLESS: Final = "diskless"
DT_PLAIN: Final = "plain"
DT_DRBD8: Final = "drbd"
DT_FILE: Final = "file"
#: Files in a directory that all nodes share; not in 2.1.
DT_SHARED_FILE: Final = "sharedfile"
DISK_TEMPLATES: Final = frozenset([DT_DISKLESS, DT_PLAIN, DT_DRBD8, DT_FILE, DT_SHARED_FILE])
DTS_FILEBASED: Final = frozenset([DT_FILE, DT_SHARED_FILE])
#: Have a copy on a second node, over the network.
DTS_NET_MIRROR: Final = frozenset([DT_DRBD8])
#: Their disks are within reach of every node.
DTS_EXT_MIRROR: Final = frozenset([DT_SHARED_FILE])
#: Instances that can start on a node other than their primary.
DTS_MIRRORED: Final = DTS_NET_MIRROR | DTS_EXT_MIRROR
DTS_NOT_LVM: Final = frozenset([DT_DISKLESS]) | DTS_FILEBASED
DTS_GROWABLE: Final = DISK_TEMPLATES - {DT_DISKLESS}

LD_LV: Final = "lvm"
LD_DRBD8: Final = "drbd8"
LD_FILE: Final = "file"
LOGICAL_DISK_TYPES: Final = frozenset([LD_LV, LD_DRBD8, LD_FILE])
LDS_BLOCK: Final = frozenset([LD_LV, LD_DRBD8])
LDS_DRBD: Final = frozenset([LD_DRBD8])

FD_LOOP: Final = "loop"
FD_BLKTAP: Final = "blktap"
FILE_DRIVER: Final = frozenset([FD_LOOP, FD_BLKTAP])
ENABLE_FILE_STORAGE: Final = pathutils.ENABLE_FILE_STORAGE

DISK_RDONLY: Final = "ro"
DISK_RDWR: Final = "rw"
DISK_ACCESS_SET: Final = frozenset([DISK_RDONLY, DISK_RDWR])

#: State of the local half of a disk; a greater one is a worse one.
LDS_OKAY: Final = 1
LDS_UNKNOWN: Final = 2
LDS_FAULTY: Final = 3
LDS_NAMES: Final[Mapping[int, str]] = {
    LDS_OKAY: "ok",
    LDS_UNKNOWN: "unknown",
    LDS_FAULTY: "faulty",
}

REPLACE_DISK_PRI: Final = "replace_on_primary"
REPLACE_DISK_SEC: Final = "replace_on_secondary"
REPLACE_DISK_CHG: Final = "replace_new_secondary"
REPLACE_DISK_AUTO: Final = "replace_auto"
REPLACE_MODES: Final = frozenset(
    [REPLACE_DISK_PRI, REPLACE_DISK_SEC, REPLACE_DISK_CHG, REPLACE_DISK_AUTO]
)

DDM_ADD: Final = "add"
DDM_REMOVE: Final = "remove"
DDMS_VALUES: Final = frozenset([DDM_ADD, DDM_REMOVE])

IDISK_SIZE: Final = "size"
IDISK_MODE: Final = "mode"
IDISK_ADOPT: Final = "adopt"
#: What a new disk can be described with; the disk parameters come on top.
IDISK_PARAMS_TYPES: Final[Mapping[str, str]] = {
    IDISK_SIZE: VTYPE_SIZE,
    IDISK_MODE: VTYPE_STRING,
    IDISK_ADOPT: VTYPE_STRING,
}
IDISK_PARAMS: Final = frozenset(IDISK_PARAMS_TYPES)

DRBD_HMAC_ALG: Final = "md5"
#: For new devices where the kernels of both nodes have it.
DRBD_HMAC_ALG_STRONG: Final = "sha256"
DRBD_NET_PROTOCOL: Final = "C"

#: Size in MiB of the metadata volume of a DRBD disk.
DRBD_META_SIZE: Final = 128
#: KiB/s.
SYNC_SPEED: Final = 60 * 1024
MAX_DISKS: Final = 16
MAX_NICS: Final = 8
DEFAULT_VG: Final = "xenvg"
#: MiB.
MIN_VG_SIZE: Final = 20480

# Storage units

ST_FILE: Final = "file"
ST_LVM_PV: Final = "lvm-pv"
ST_LVM_VG: Final = "lvm-vg"
VALID_STORAGE_TYPES: Final = frozenset([ST_FILE, ST_LVM_PV, ST_LVM_VG])

SF_NODE: Final = "node"
SF_TYPE: Final = "type"
SF_NAME: Final = "name"
SF_SIZE: Final = "size"
SF_FREE: Final = "free"
SF_USED: Final = "used"
SF_ALLOCATABLE: Final = "allocatable"
#: What a node can tell about a unit.
VALID_STORAGE_BACKEND_FIELDS: Final = frozenset(
    [SF_NAME, SF_SIZE, SF_FREE, SF_USED, SF_ALLOCATABLE]
)
#: What a request may ask for; the node comes from the master.
VALID_STORAGE_FIELDS: Final = frozenset(
    [SF_NAME, SF_TYPE, SF_SIZE, SF_USED, SF_FREE, SF_ALLOCATABLE]
)
MODIFIABLE_STORAGE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    ST_LVM_PV: frozenset([SF_ALLOCATABLE]),
}
SO_FIX_CONSISTENCY: Final = "fix-consistency"
VALID_STORAGE_OPERATIONS: Final[Mapping[str, frozenset[str]]] = {
    ST_LVM_VG: frozenset([SO_FIX_CONSISTENCY]),
}

# Parameters, beyond their tables

DEFAULT_ENABLED_HYPERVISOR: Final = HT_XEN_PVM
#: Their instances get a network port for VNC.
HTS_REQ_PORT: Final = frozenset([HT_XEN_HVM, HT_KVM])
#: The one profile of backend, NIC and disk parameters.
PP_DEFAULT: Final = "default"

# Words with a meaning of their own in place of a parameter's value
VALUE_DEFAULT: Final = "default"
VALUE_AUTO: Final = "auto"
VALUE_GENERATE: Final = "generate"
VALUE_NONE: Final = "none"
VALUE_TRUE: Final = "true"
VALUE_FALSE: Final = "false"

PARAMETER_NAME_RE: Final = re.compile("^[a-zA-Z_][a-zA-Z0-9_]*\\Z")

INIC_MAC: Final = "mac"
INIC_IP: Final = "ip"
INIC_MODE: Final = NIC_MODE
INIC_LINK: Final = NIC_LINK
#: Old name of the link.
INIC_BRIDGE: Final = "bridge"
INIC_PARAMS_TYPES: Final[Mapping[str, str]] = {
    INIC_MAC: VTYPE_STRING,
    INIC_IP: VTYPE_STRING,
    INIC_MODE: VTYPE_STRING,
    INIC_LINK: VTYPE_STRING,
    INIC_BRIDGE: VTYPE_STRING,
}
INIC_PARAMS: Final = frozenset(INIC_PARAMS_TYPES)

# Instances

INSTST_RUNNING: Final = "running"
INSTST_ADMINDOWN: Final = "ADMIN_down"
#: Runs but should not.
INSTST_ERRORUP: Final = "ERROR_up"
#: Should run but does not.
INSTST_ERRORDOWN: Final = "ERROR_down"
#: Runs, but on another node than its primary.
INSTST_WRONGNODE: Final = "ERROR_wrongnode"
INSTST_NODEDOWN: Final = "ERROR_nodedown"
INSTST_NODEOFFLINE: Final = "ERROR_nodeoffline"
INSTST_ALL: Final = frozenset(
    [
        INSTST_RUNNING,
        INSTST_ADMINDOWN,
        INSTST_ERRORUP,
        INSTST_ERRORDOWN,
        INSTST_WRONGNODE,
        INSTST_NODEDOWN,
        INSTST_NODEOFFLINE,
    ]
)

INSTANCE_CREATE: Final = "create"
INSTANCE_IMPORT: Final = "import"
INSTANCE_CREATE_MODES: Final = frozenset([INSTANCE_CREATE, INSTANCE_IMPORT])

INSTANCE_REBOOT_SOFT: Final = "soft"
INSTANCE_REBOOT_HARD: Final = "hard"
INSTANCE_REBOOT_FULL: Final = "full"
REBOOT_TYPES: Final = frozenset([INSTANCE_REBOOT_SOFT, INSTANCE_REBOOT_HARD, INSTANCE_REBOOT_FULL])

#: Seconds that a guest has for its shutdown.
DEFAULT_SHUTDOWN_TIMEOUT: Final = 120

# Locks

LOCKS_REPLACE: Final = "replace"
LOCKS_APPEND: Final = "append"

# Exports

INISECT_EXP: Final = "export"
INISECT_INS: Final = "instance"
INISECT_HYP: Final = "hypervisor"
INISECT_BEP: Final = "backend"

# Allocator

#: Seconds that an allocator script may take, and bytes that its answer may have.
IALLOCATOR_TIMEOUT: Final = 600
IALLOCATOR_MAX_OUTPUT: Final = 8 * 1024 * 1024
IALLOCATOR_DIR_IN: Final = "in"
IALLOCATOR_DIR_OUT: Final = "out"
VALID_IALLOCATOR_DIRECTIONS: Final = frozenset([IALLOCATOR_DIR_IN, IALLOCATOR_DIR_OUT])
IALLOCATOR_MODE_ALLOC: Final = "allocate"
IALLOCATOR_MODE_RELOC: Final = "relocate"
IALLOCATOR_MODE_MEVAC: Final = "multi-evacuate"
IALLOCATOR_MODE_BALANCE: Final = "balance"
IALLOCATOR_MODE_CAPACITY: Final = "capacity"
VALID_IALLOCATOR_MODES: Final = frozenset(
    [
        IALLOCATOR_MODE_ALLOC,
        IALLOCATOR_MODE_RELOC,
        IALLOCATOR_MODE_MEVAC,
        IALLOCATOR_MODE_BALANCE,
        IALLOCATOR_MODE_CAPACITY,
    ]
)

# OS definitions

OS_SCRIPT_CREATE: Final = "create"
OS_SCRIPT_IMPORT: Final = "import"
OS_SCRIPT_EXPORT: Final = "export"
OS_SCRIPT_RENAME: Final = "rename"
OS_SCRIPT_VERIFY: Final = "verify"
#: The scripts that every definition has.
OS_SCRIPTS: Final = (OS_SCRIPT_CREATE, OS_SCRIPT_IMPORT, OS_SCRIPT_EXPORT, OS_SCRIPT_RENAME)
OS_API_FILE: Final = "ganeti_api_version"
OS_VARIANTS_FILE: Final = "variants.list"
OS_PARAMETERS_FILE: Final = "parameters.list"
#: What the verify script is asked to judge.
OS_VALIDATE_PARAMETERS: Final = "parameters"
#: Between the name of an OS and its variant.
OS_VARIANT_SEPARATOR: Final = "+"

# Hooks and directories of scripts

HOOKS_PHASE_PRE: Final = "pre"
HOOKS_PHASE_POST: Final = "post"
HOOKS_NAME_CFGUPDATE: Final = "config-update"
HOOKS_NAME_WATCHER: Final = "watcher"
HTYPE_CLUSTER: Final = "CLUSTER"
HTYPE_NODE: Final = "NODE"
HTYPE_INSTANCE: Final = "INSTANCE"
HKR_SKIP: Final = 0
HKR_FAIL: Final = 1
HKR_SUCCESS: Final = 2
#: Seconds that a hook script may take, unless the administrator wants something else; what that may
#: be at most; how often that is what all scripts of a directory may take together.
HOOKS_TIMEOUT: Final = 300
HOOKS_MAX_TIMEOUT: Final = 86400
HOOKS_DIRECTORY_FACTOR: Final = 3
#: Bytes that are kept of what a hook script prints, to each of its streams.
HOOKS_MAX_OUTPUT: Final = 64 * 1024

RUNPARTS_SKIP: Final = 0
RUNPARTS_RUN: Final = 1
RUNPARTS_ERR: Final = 2

# Tags

TAG_CLUSTER: Final = "cluster"
TAG_NODE: Final = "node"
TAG_INSTANCE: Final = "instance"
VALID_TAG_TYPES: Final = frozenset([TAG_CLUSTER, TAG_NODE, TAG_INSTANCE])
MAX_TAG_LEN: Final = 128
MAX_TAGS_PER_OBJ: Final = 4096
TAG_RE: Final = re.compile("^[\\w.+*/:@-]+\\Z", re.ASCII)

# Jobs and opcodes

OP_STATUS_QUEUED: Final = "queued"
OP_STATUS_WAITLOCK: Final = "waiting"
OP_STATUS_CANCELING: Final = "canceling"
OP_STATUS_RUNNING: Final = "running"
OP_STATUS_CANCELED: Final = "canceled"
OP_STATUS_SUCCESS: Final = "success"
OP_STATUS_ERROR: Final = "error"
OP_STATUS_ALL: Final = frozenset(
    [
        OP_STATUS_QUEUED,
        OP_STATUS_WAITLOCK,
        OP_STATUS_CANCELING,
        OP_STATUS_RUNNING,
        OP_STATUS_CANCELED,
        OP_STATUS_SUCCESS,
        OP_STATUS_ERROR,
    ]
)
OPS_FINALIZED: Final = frozenset([OP_STATUS_CANCELED, OP_STATUS_SUCCESS, OP_STATUS_ERROR])

# What can happen to an opcode
#: A worker takes the job and asks for its locks.
OP_EVENT_TAKE: Final = "take"
#: All locks are held.
OP_EVENT_START: Final = "start"
OP_EVENT_SUCCEED: Final = "succeed"
#: The logical unit raised, or the master daemon was restarted while it ran.
OP_EVENT_FAIL: Final = "fail"
#: Somebody asked for the job to be cancelled.
OP_EVENT_CANCEL: Final = "cancel"
#: The worker of a job that waits for locks sees that it is to be cancelled.
OP_EVENT_NOTICE: Final = "notice"
#: Back to the queue without having run: the master daemon was restarted, or the locks were not to
#: be had in time.
OP_EVENT_REQUEUE: Final = "requeue"
#: An earlier opcode of the job failed.
OP_EVENT_ABANDON: Final = "abandon"

#: The only changes of an opcode's status there are: (status, event) -> status.
OP_TRANSITIONS: Final[Mapping[tuple[str, str], str]] = {
    (OP_STATUS_QUEUED, OP_EVENT_TAKE): OP_STATUS_WAITLOCK,
    (OP_STATUS_QUEUED, OP_EVENT_CANCEL): OP_STATUS_CANCELED,
    (OP_STATUS_QUEUED, OP_EVENT_ABANDON): OP_STATUS_ERROR,
    (OP_STATUS_QUEUED, OP_EVENT_FAIL): OP_STATUS_ERROR,
    (OP_STATUS_WAITLOCK, OP_EVENT_START): OP_STATUS_RUNNING,
    (OP_STATUS_WAITLOCK, OP_EVENT_REQUEUE): OP_STATUS_QUEUED,
    (OP_STATUS_WAITLOCK, OP_EVENT_CANCEL): OP_STATUS_CANCELING,
    (OP_STATUS_WAITLOCK, OP_EVENT_FAIL): OP_STATUS_ERROR,
    # Of what can be interrupted only.
    (OP_STATUS_RUNNING, OP_EVENT_CANCEL): OP_STATUS_CANCELING,
    (OP_STATUS_CANCELING, OP_EVENT_SUCCEED): OP_STATUS_SUCCESS,
    (OP_STATUS_CANCELING, OP_EVENT_NOTICE): OP_STATUS_CANCELED,
    (OP_STATUS_CANCELING, OP_EVENT_FAIL): OP_STATUS_ERROR,
    (OP_STATUS_RUNNING, OP_EVENT_SUCCEED): OP_STATUS_SUCCESS,
    (OP_STATUS_RUNNING, OP_EVENT_FAIL): OP_STATUS_ERROR,
}

# A job has the same states; its state is computed from those of its opcodes.
JOB_STATUS_QUEUED: Final = OP_STATUS_QUEUED
JOB_STATUS_WAITLOCK: Final = OP_STATUS_WAITLOCK
JOB_STATUS_CANCELING: Final = OP_STATUS_CANCELING
JOB_STATUS_RUNNING: Final = OP_STATUS_RUNNING
JOB_STATUS_CANCELED: Final = OP_STATUS_CANCELED
JOB_STATUS_SUCCESS: Final = OP_STATUS_SUCCESS
JOB_STATUS_ERROR: Final = OP_STATUS_ERROR
JOB_STATUS_ALL: Final = OP_STATUS_ALL
JOBS_FINALIZED: Final = OPS_FINALIZED

# What a node says about a migration

MIGRATION_ACTIVE: Final = "active"
MIGRATION_COMPLETED: Final = "completed"
MIGRATION_FAILED: Final = "failed"
MIGRATION_CANCELLED: Final = "cancelled"
MIGRATION_STATUSES: Final = (
    MIGRATION_ACTIVE,
    MIGRATION_COMPLETED,
    MIGRATION_FAILED,
    MIGRATION_CANCELLED,
)

ELOG_MESSAGE: Final = "message"
ELOG_PROGRESS: Final = "progress"

#: Answer to a client that waited for a change when there was none.
JOB_NOTCHANGED: Final = "nochange"

JOB_QUEUE_SIZE_HARD_LIMIT: Final = 5000
JOB_QUEUE_SIZE_SOFT_LIMIT: Final = JOB_QUEUE_SIZE_HARD_LIMIT * 8 // 10
JOBS_PER_ARCHIVE_DIRECTORY: Final = 10000
JOB_ID_TEMPLATE: Final = r"\d+"

# Priorities of jobs, lock requests and tasks: a smaller number goes first.
OP_PRIO_LOWEST: Final = 19
OP_PRIO_LOW: Final = 10
OP_PRIO_NORMAL: Final = 0
OP_PRIO_HIGH: Final = -10
OP_PRIO_HIGHEST: Final = -20
OP_PRIO_DEFAULT: Final = OP_PRIO_NORMAL

# Sizes of pools of threads
JOB_THREADS: Final = 25
CLIENT_REQUEST_WORKERS: Final = 16
HTTP_CLIENT_THREADS: Final = 10
HTTP_SERVER_CHILDREN: Final = 20

# Sizes, times in seconds

MASTER_POOL_SIZE_DEFAULT: Final = 10
TCP_PING_TIMEOUT: Final = 10
#: Most seconds by which the clock of a node may be off.
NODE_MAX_CLOCK_SKEW: Final = 150
#: Days before a certificate expires.
SSL_CERT_EXPIRATION_WARN: Final = 30
SSL_CERT_EXPIRATION_ERROR: Final = 7
DEFAULT_MAC_PREFIX: Final = "aa:00:00"
UIDPOOL_UID_MIN: Final = 0
UIDPOOL_UID_MAX: Final = 2**32 - 1

# LUXI

#: End of a message.
LUXI_EOM: Final = b"\3"
LUXI_DEF_CTMO: Final = 10
LUXI_DEF_RWTO: Final = 60
#: Longest single wait for a job change, below the time-out of the client.
LUXI_WFJC_TIMEOUT: Final = (LUXI_DEF_RWTO - 1) // 2

# Node calls

RPC_ENCODING_NONE: Final = 0
RPC_ENCODING_ZLIB_BASE64: Final = 1

# confd

CONFD_REQ_PING: Final = 0
CONFD_REQ_NODE_ROLE_BYNAME: Final = 1
CONFD_REQ_NODE_PIP_BY_INSTANCE_IP: Final = 2
CONFD_REQ_CLUSTER_MASTER: Final = 3
CONFD_REQ_NODE_PIP_LIST: Final = 4
CONFD_REQ_MC_PIP_LIST: Final = 5
CONFD_REQ_INSTANCES_IPS_LIST: Final = 6
CONFD_REQS: Final = frozenset(
    [
        CONFD_REQ_PING,
        CONFD_REQ_NODE_ROLE_BYNAME,
        CONFD_REQ_NODE_PIP_BY_INSTANCE_IP,
        CONFD_REQ_CLUSTER_MASTER,
        CONFD_REQ_NODE_PIP_LIST,
        CONFD_REQ_MC_PIP_LIST,
        CONFD_REQ_INSTANCES_IPS_LIST,
    ]
)
CONFD_REQQ_LINK: Final = "0"
CONFD_REQQ_IP: Final = "1"
CONFD_REQQ_IPLIST: Final = "2"
CONFD_REQQ_FIELDS: Final = "3"
CONFD_REQFIELD_NAME: Final = "0"
CONFD_REQFIELD_IP: Final = "1"
CONFD_REQFIELD_MNODE_PIP: Final = "2"

CONFD_REPL_STATUS_OK: Final = 0
CONFD_REPL_STATUS_ERROR: Final = 1
CONFD_REPL_STATUS_NOTIMPLEMENTED: Final = 2
CONFD_REPL_STATUSES: Final = frozenset(
    [CONFD_REPL_STATUS_OK, CONFD_REPL_STATUS_ERROR, CONFD_REPL_STATUS_NOTIMPLEMENTED]
)

CONFD_NODE_ROLE_MASTER: Final = 0
CONFD_NODE_ROLE_CANDIDATE: Final = 1
CONFD_NODE_ROLE_OFFLINE: Final = 2
CONFD_NODE_ROLE_DRAINED: Final = 3
CONFD_NODE_ROLE_REGULAR: Final = 4

CONFD_ERROR_UNKNOWN_ENTRY: Final = 1
CONFD_ERROR_INTERNAL: Final = 2
CONFD_ERROR_ARGUMENT: Final = 3

#: Plain JSON, version 0.
CONFD_MAGIC_FOURCC: Final = "plj0"
#: A message may be that many seconds old or early.
CONFD_MAX_CLOCK_SKEW: Final = 2 * NODE_MAX_CLOCK_SKEW
#: Seconds after which the configuration is looked at though no event came.
CONFD_CONFIG_RELOAD_TIMEOUT: Final = 60
#: Events that come closer than this many seconds are replaced by looking.
CONFD_CONFIG_RELOAD_RATELIMIT: Final = 2
#: How many candidates a client asks by default.
CONFD_DEFAULT_REQ_COVERAGE: Final = 6
CONFD_CLIENT_EXPIRE_TIMEOUT: Final = 10
#: Bytes, magic included.
MAX_UDP_DATA_SIZE: Final = 61440

# ssconf

SS_CLUSTER_NAME: Final = "cluster_name"
SS_CLUSTER_TAGS: Final = "cluster_tags"
SS_FILE_STORAGE_DIR: Final = "file_storage_dir"
SS_SHARED_FILE_STORAGE_DIR: Final = "shared_file_storage_dir"
SS_MASTER_CANDIDATES: Final = "master_candidates"
SS_MASTER_CANDIDATES_IPS: Final = "master_candidates_ips"
SS_MASTER_IP: Final = "master_ip"
SS_MASTER_NETDEV: Final = "master_netdev"
SS_MASTER_NODE: Final = "master_node"
SS_NODE_LIST: Final = "node_list"
SS_NODE_PRIMARY_IPS: Final = "node_primary_ips"
SS_NODE_SECONDARY_IPS: Final = "node_secondary_ips"
SS_OFFLINE_NODES: Final = "offline_nodes"
SS_ONLINE_NODES: Final = "online_nodes"
SS_INSTANCE_LIST: Final = "instance_list"
SS_RELEASE_VERSION: Final = "release_version"
SS_HYPERVISOR_LIST: Final = "hypervisor_list"
SS_MAINTAIN_NODE_HEALTH: Final = "maintain_node_health"
SS_UID_POOL: Final = "uid_pool"
SS_ALL: Final = frozenset(
    [
        SS_CLUSTER_NAME,
        SS_CLUSTER_TAGS,
        SS_FILE_STORAGE_DIR,
        SS_SHARED_FILE_STORAGE_DIR,
        SS_MASTER_CANDIDATES,
        SS_MASTER_CANDIDATES_IPS,
        SS_MASTER_IP,
        SS_MASTER_NETDEV,
        SS_MASTER_NODE,
        SS_NODE_LIST,
        SS_NODE_PRIMARY_IPS,
        SS_NODE_SECONDARY_IPS,
        SS_OFFLINE_NODES,
        SS_ONLINE_NODES,
        SS_INSTANCE_LIST,
        SS_RELEASE_VERSION,
        SS_HYPERVISOR_LIST,
        SS_MAINTAIN_NODE_HEALTH,
        SS_UID_POOL,
    ]
)

# Cluster verify: what a node is asked

NV_FILELIST: Final = "filelist"
NV_HVINFO: Final = "hvinfo"
NV_HYPERVISOR: Final = "hypervisor"
NV_INSTANCELIST: Final = "instancelist"
NV_NODELIST: Final = "nodelist"
NV_NODENETTEST: Final = "node-net-test"
NV_VERSION: Final = "version"
NV_VGLIST: Final = "vglist"
NV_LVLIST: Final = "lvlist"
NV_PVLIST: Final = "pvlist"
NV_DRBDLIST: Final = "drbd-list"
NV_NODESETUP: Final = "nodesetup"
NV_TIME: Final = "time"
NV_MASTERIP: Final = "master-ip"
NV_ALL: Final = frozenset(
    [
        NV_FILELIST,
        NV_HVINFO,
        NV_HYPERVISOR,
        NV_INSTANCELIST,
        NV_NODELIST,
        NV_NODENETTEST,
        NV_VERSION,
        NV_VGLIST,
        NV_LVLIST,
        NV_PVLIST,
        NV_DRBDLIST,
        NV_NODESETUP,
        NV_TIME,
        NV_MASTERIP,
    ]
)

# Cluster verify: what is wrong with what

VERIFY_NPLUSONE_MEM: Final = "nplusone_mem"
VERIFY_OPTIONAL_CHECKS: Final = frozenset([VERIFY_NPLUSONE_MEM])

CV_ERROR: Final = "ERROR"
CV_WARNING: Final = "WARNING"
CV_TCLUSTER: Final = "cluster"
CV_TNODE: Final = "node"
CV_TINSTANCE: Final = "instance"

# Kind of item, code
CV_ECLUSTERCFG: Final = (CV_TCLUSTER, "ECLUSTERCFG")
CV_ECLUSTERCERT: Final = (CV_TCLUSTER, "ECLUSTERCERT")
CV_EINSTANCEBADNODE: Final = (CV_TINSTANCE, "EINSTANCEBADNODE")
CV_EINSTANCEDOWN: Final = (CV_TINSTANCE, "EINSTANCEDOWN")
CV_EINSTANCELAYOUT: Final = (CV_TINSTANCE, "EINSTANCELAYOUT")
CV_EINSTANCEMISSINGDISK: Final = (CV_TINSTANCE, "EINSTANCEMISSINGDISK")
CV_EINSTANCEWRONGNODE: Final = (CV_TINSTANCE, "EINSTANCEWRONGNODE")
CV_ENODEDRBD: Final = (CV_TNODE, "ENODEDRBD")
CV_ENODEFILECHECK: Final = (CV_TNODE, "ENODEFILECHECK")
CV_ENODEHOOKS: Final = (CV_TNODE, "ENODEHOOKS")
CV_ENODEHV: Final = (CV_TNODE, "ENODEHV")
CV_ENODELVM: Final = (CV_TNODE, "ENODELVM")
CV_ENODEN1: Final = (CV_TNODE, "ENODEN1")
CV_ENODENET: Final = (CV_TNODE, "ENODENET")
CV_ENODEORPHANINSTANCE: Final = (CV_TNODE, "ENODEORPHANINSTANCE")
CV_ENODEORPHANLV: Final = (CV_TNODE, "ENODEORPHANLV")
CV_ENODERPC: Final = (CV_TNODE, "ENODERPC")
CV_ENODESSH: Final = (CV_TNODE, "ENODESSH")
CV_ENODEVERSION: Final = (CV_TNODE, "ENODEVERSION")
CV_ENODESETUP: Final = (CV_TNODE, "ENODESETUP")
CV_ENODETIME: Final = (CV_TNODE, "ENODETIME")
