"""Calls one method of the chroot hypervisor in a process of its own, as the node daemon does.

Arguments: directory of mounts, directory of logs, method, arguments in JSON, keywords in JSON.
An argument with a key "name" is an instance; one that is a list of paths its disks. Prints JSON.
"""

import json
import sys

from ganeti import constants, errors, objects
from ganeti.hypervisor import hv_chroot


def Argument(value):
    if isinstance(value, dict):
        return objects.Instance(
            name=value["name"],
            hypervisor="chroot",
            hvparams={**constants.HVC_DEFAULTS["chroot"], **value.get("hvparams", {})},
        )
    if isinstance(value, list):
        return [(objects.Disk(dev_type="file", mode="rw"), path) for path in value]
    return value


def Main():
    root, logs, method, args, kwargs = sys.argv[1:]
    manager = hv_chroot.ChrootManager(root_dir=root, log_dir=logs)
    try:
        result = getattr(manager, method)(*map(Argument, json.loads(args)), **json.loads(kwargs))
    except errors.HypervisorError as err:
        print(json.dumps({"error": str(err)}))
    else:
        print(json.dumps({"result": result}))


if __name__ == "__main__":
    Main()
