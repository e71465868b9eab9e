"""The data of the cluster: what config.data holds and what travels between master and nodes.

Every object turns into a dictionary that JSON can hold and back (C{ToDict}, C{FromDict}).
Attributes that are not set are left out of it; keys that this version does not know are kept and
written back.
"""

from .base import ConfigObject, FillDict, TaggableObject, UpgradeGroupedParams
from .cluster import Cluster, ConfigData, Node
from .export import Export, ExportedDisk, FormatExport, ParseExport
from .instance import NIC, Disk, Instance
from .transport import OS, BlockDevStatus, ConfdReply, ConfdRequest, SerializableConfigParser

__all__ = [
    "NIC",
    "OS",
    "BlockDevStatus",
    "Cluster",
    "ConfdReply",
    "ConfdRequest",
    "ConfigData",
    "ConfigObject",
    "Disk",
    "Export",
    "ExportedDisk",
    "FillDict",
    "FormatExport",
    "Instance",
    "Node",
    "ParseExport",
    "SerializableConfigParser",
    "TaggableObject",
    "UpgradeGroupedParams",
]
