"""Random work for a simulated master: real opcodes, as a seed has them."""

from __future__ import annotations

from ganeti import constants, opcodes
from ganeti.config import fake as config_fake

INSTANCES = tuple(f"inst{number}.example.com" for number in range(1, 5))
TAGS = ("web", "db", "prod")


class OpMaker:
    """Draws opcodes; each gets a comment of its own, by which it is found again.

    @ivar made: comment -> opcode
    """

    def __init__(self, rng, node_count):
        """@param node_count: nodes there are"""
        self._rng = rng
        #: The fewer there are, the more they are fought for.
        self.instances = INSTANCES[: rng.choice([1, 2, 4])]
        self._nodes = [config_fake.NodeName(number) for number in range(1, node_count + 1)]
        self.made = {}
        kinds = [
            (6, self._Create),
            (4, self._Startup),
            (4, self._Shutdown),
            (3, self._Remove),
            (5, self._Modify),
            (2, self._Reboot),
            (2, self._Disks),
            (4, self._SetTags),
            (3, self._DelTags),
            (4, self._Look),
            (4, self._NodeModify),
            (4, self._Delay),
        ]
        # Each world without some of them, so that the others meet more often.
        self._kinds = [kind for kind in kinds if rng.random() < 0.6] or kinds

    def Forbid(self, op_class):
        """Draw no opcodes of this class any more."""
        makers = {opcodes.OpNodeSetParams: self._NodeModify}
        self._kinds = [kind for kind in self._kinds if kind[1] != makers[op_class]] or [
            (1, self._Delay)
        ]

    def Only(self, *op_classes):
        """Draw opcodes of these classes alone."""
        makers = {
            opcodes.OpInstanceCreate: self._Create,
            opcodes.OpInstanceRemove: self._Remove,
            opcodes.OpTagsSet: self._SetTags,
            opcodes.OpTagsDel: self._DelTags,
            opcodes.OpNodeSetParams: self._NodeModify,
            opcodes.OpTestDelay: self._Delay,
        }
        self._kinds = [(1, makers[op_class]) for op_class in op_classes]

    def Use(self, draw):
        """Draw opcodes by this function alone."""
        self._kinds = [(1, draw)]

    def Draw(self, depends=None):
        """An opcode.

        @param depends: jobs to wait for
        """
        total = sum(weight for weight, _ in self._kinds)
        number = self._rng.randint(1, total)
        index = -1
        while number > 0:
            index += 1
            number -= self._kinds[index][0]
        return self.Finish(self._kinds[index][1](), depends)

    def Finish(self, op, depends=None):
        """What all opcodes have."""
        op.comment = f"op{len(self.made) + 1}"
        op.priority = self._rng.choice([0, 0, 0, -10, 10])
        op.debug_level = 0
        op.dry_run = op.OP_ID.startswith("OP_INSTANCE") and self._rng.random() < 0.05
        op.Validate(True)
        # Negative numbers count backwards in a batch; the queue makes ids of them.
        op.depends = depends
        self.made[op.comment] = op
        return op

    def _Instance(self):
        return self._rng.choice(self.instances)

    def _Node(self):
        return self._rng.choice(self._nodes)

    def _Create(self):
        choose = self._rng.choice
        template = choose([constants.DT_FILE, constants.DT_FILE, constants.DT_DISKLESS])
        count = self._rng.randint(1, 2) if template == constants.DT_FILE else 0
        return opcodes.OpInstanceCreate(
            instance_name=self._Instance(),
            mode=constants.INSTANCE_CREATE,
            disks=[{"size": 100}] * count,
            nics=[{}] * self._rng.randint(0, 2),
            start=choose([True, False]),
            wait_for_sync=True,
            ip_check=False,
            name_check=False,
            hvparams={},
            beparams={constants.BE_MEMORY: choose([128, 256])},
            os_type=choose(["noop+other"] + ["noop+default"] * 8 + ["unknown"]),
            disk_template=template,
            hypervisor=choose([constants.HT_FAKE, constants.HT_KVM]),
            pnode=self._Node(),
        )

    def _Startup(self):
        return opcodes.OpInstanceStartup(instance_name=self._Instance(), force=False)

    def _Shutdown(self):
        return opcodes.OpInstanceShutdown(instance_name=self._Instance(), timeout=10)

    def _Remove(self):
        return opcodes.OpInstanceRemove(
            instance_name=self._Instance(),
            ignore_failures=self._rng.choice([True, False]),
            shutdown_timeout=10,
        )

    def _Modify(self):
        changes = self._rng.choice(
            [
                {"beparams": {constants.BE_MEMORY: self._rng.choice([64, 512])}},
                {"nics": [["add", {}]]},
                {"nics": [["remove", {}]]},
                {"disks": [["add", {"size": 64}]]},
                {"disks": [["remove", {}]]},
            ]
        )
        return opcodes.OpInstanceSetParams(instance_name=self._Instance(), **changes)

    def _Reboot(self):
        return opcodes.OpInstanceReboot(
            instance_name=self._Instance(),
            reboot_type=self._rng.choice(
                [constants.INSTANCE_REBOOT_HARD, constants.INSTANCE_REBOOT_FULL]
            ),
            ignore_secondaries=False,
            shutdown_timeout=10,
        )

    def _Disks(self):
        cls = self._rng.choice([opcodes.OpInstanceActivateDisks, opcodes.OpInstanceDeactivateDisks])
        return cls(instance_name=self._Instance())

    def _TagTarget(self):
        kind = self._rng.choice(
            [constants.TAG_CLUSTER, constants.TAG_CLUSTER, constants.TAG_NODE]
            + [constants.TAG_INSTANCE]
        )
        names = {
            constants.TAG_CLUSTER: "",
            constants.TAG_NODE: self._Node(),
            constants.TAG_INSTANCE: self._Instance(),
        }
        return {"kind": kind, "name": names[kind]}

    def _SetTags(self):
        return opcodes.OpTagsSet(tags=[self._rng.choice(TAGS)], **self._TagTarget())

    def _DelTags(self):
        return opcodes.OpTagsDel(tags=[self._rng.choice(TAGS)], **self._TagTarget())

    def _Look(self):
        return self._rng.choice(
            [
                lambda: opcodes.OpTagsGet(**self._TagTarget()),
                lambda: opcodes.OpClusterVerify(
                    skip_checks=[], verbose=False, error_codes=False, debug_simulate_errors=False
                ),
                lambda: opcodes.OpNodeQuery(
                    output_fields=["name", "mfree"], names=[], use_locking=True
                ),
                lambda: opcodes.OpInstanceQuery(
                    output_fields=["name", "oper_state"], names=[], use_locking=True
                ),
            ]
        )()

    def _NodeModify(self):
        flag = self._rng.choice(["offline", "drained", "master_candidate"])
        return opcodes.OpNodeSetParams(
            node_name=self._Node(),
            force=False,
            auto_promote=self._rng.choice([True, False]),
            **{flag: self._rng.choice([True, False, False])},
        )

    def _Delay(self):
        on_nodes = self._rng.choice([[], [self._Node()], list(self._nodes)])
        return opcodes.OpTestDelay(
            duration=self._rng.choice([0.1, 1.0, 5.0]),
            on_master=not on_nodes or self._rng.choice([True, False]),
            on_nodes=on_nodes,
        )
