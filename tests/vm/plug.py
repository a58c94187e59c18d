# SPDX-License-Identifier: GPL-2.0-or-later
"""Cards behind PCI Express root ports, which come and go while the machine runs."""
import os
import re
from pathlib import Path

from case import Card, VmCase
from pair import PairCase
from svio_tool import transfer
from svio_tool.vm import Vm
from wires import DEADLINE


class PortCard(Card):
    """A card in a root port of its own; `options` of the port as well as of the card."""

    @property
    def port(self):
        return f"pcie-root-port,id=rp{self.index},chassis={self.index},slot={self.index}," \
               f"addr={0x10 + self.index:#x}"

    def device(self):
        words = f"svio-nic,id={self.name},{self.wire.words},mac={self.mac},bus=rp{self.index}"
        return words + ("," + self.options if self.options else "")


def arguments(words):
    """A -device or -netdev argument as QMP wants it; commas that belong to a value are written twice."""
    kind, *rest = words.replace(",,", "\0").split(",")
    found = dict(word.replace("\0", ",").split("=", 1) for word in rest)
    return kind, {key: int(value) if value.isdigit() else value for key, value in found.items()}


class PlugCase(PairCase):
    """One VM whose cards sit in root ports."""

    MORE_MEMORY, APPEND, IOMMU = "", "", ()

    @classmethod
    def make_vm(cls):
        cards = cls.card.values()
        devices = [*cls.IOMMU, *(card.port for card in cards), *(card.device() for card in cards)]
        return Vm(f"test-{cls.NAME}", nics=devices,
                  netdevs=[card.wire.netdev for card in cards if card.wire.netdev], machine=cls.MACHINE,
                  smp=cls.SMP, memory=cls.MEMORY, more_memory=cls.MORE_MEMORY, kernel=cls.KERNEL,
                  append=cls.APPEND, extra=cls.EXTRA, plugin=True)

    def namespace(self, card):
        return super().namespace(card) if any(card.name in pair for pair in self.PAIRS.values()) else None

    def in_ns(self, card, command):
        return super().in_ns(card, command) if self.namespace(card) else self.run_in(command)

    def ethtool(self, card, prefix=""):
        return super().ethtool(card) if self.namespace(card) else VmCase.ethtool(self, card)

    @classmethod
    def set_up_user(cls):
        """The card "user", on the user network."""
        cls.run_in("ip address replace 10.0.2.15/24 dev user && ip link set user up && "
                   "ip route replace default via 10.0.2.2")

    def exchange(self, size=2 << 20):
        """A file through it, and back."""
        self.assertTrue(transfer.exchange(self.vm, size)["agree"])

    # ---- what the process has ----

    def threads(self):
        """Names of the threads of all on-board cores."""
        names = []
        for task in Path(f"/proc/{self.vm.pid}/task").iterdir():
            try:
                names.append((task / "comm").read_text().strip())
            except OSError:
                continue        # it has just ended
        return sorted(name for name in names if name.startswith("svio-core"))

    def held(self):
        """(on-board cores, file descriptors) of QEMU."""
        return len(self.threads()), len(os.listdir(f"/proc/{self.vm.pid}/fd"))

    def wait_held(self, wanted):
        seen = {}

        def equal():
            seen["now"] = self.held()
            return seen["now"] == wanted
        self.wait(equal, lambda: f"cores and descriptors are {wanted}, now {seen['now']}")

    # ---- coming and going ----

    def wait_deleted(self, name):
        event = self.vm.wait_event("DEVICE_DELETED", DEADLINE)
        while event and event["data"].get("device") != name:
            event = self.vm.wait_event("DEVICE_DELETED", DEADLINE)
        self.assertIsNotNone(event, f"{name} is gone")

    def unplug(self, card):
        """With the guest's cooperation, as it comes with the machine: ACPI or the port's own button."""
        self.vm.qmp("device_del", id=card.name)
        self.wait_deleted(card.name)

    def plug(self, card, ns=None):
        kind, words = arguments(card.device())
        self.vm.qmp("device_add", driver=kind, **{key.replace("-", "_"): value
                                                  for key, value in words.items()})
        self.wait_interface(card)
        self.name_interfaces(card)
        if ns:
            self.run_in(f"ip link set {card.dev} netns {ns}")

    def wait_interface(self, card, there=True):
        def seen():
            return (card.mac in self.run_in("cat /sys/class/net/*/address")) == there
        self.wait(seen, f"an interface with {card.mac} is {'there' if there else 'gone'}")

    def queue_address(self, card, direction):
        """Guest address of a queue's ring, as the card's registers say (read through QEMU's monitor)."""
        part = next(part for part in self.vm.hmp("info pci").split("  Bus ") if f'id "{card.name}"' in part)
        found = re.search(r"BAR0: .* at (0x[0-9a-f]+)", part)
        base = int(found[1], 16) + 0x4000 + 0x80 * direction
        low, high = re.findall(r"0x([0-9a-f]{8})\b", self.vm.hmp(f"xp /2xw {base:#x}"))[-2:]
        return int(high + low, 16)
