# SPDX-License-Identifier: GPL-2.0-or-later
"""Unplugging a card from a running machine and plugging another one in."""
import unittest

from case import MAC_TEXT, DeviceCase
from driver import Driver
from machine import Function
from svio_tool.qmp import QmpError
from wires import MAC, PEER, flood, frame

PCIHP, SELECT, EJECT = 0x0cc0, 0x10, 0x08  # ACPI PCI hot-plug registers of q35


class Hotplug(DeviceCase):
    def unplug(self):
        """As an ACPI guest does when it is asked: it ejects the slot that says so."""
        qmp, qtest = self.machine.qmp, self.machine.qtest
        qmp.command("device_del", {"id": "svio0"})
        for bus in range(4):
            qtest.out(4, PCIHP + SELECT, bus)
            down = qtest.in_(4, PCIHP + 4)
            if down:
                qtest.out(4, PCIHP + EJECT, down)
                break
        event = qmp.wait_event("DEVICE_DELETED")
        while event and event["data"].get("device") != "svio0":
            event = qmp.wait_event("DEVICE_DELETED")
        self.assertIsNotNone(event, "the device is gone")
        self.wait(lambda: not self.machine.threads(), "the end of all on-board cores")
        with self.assertRaises(QmpError):
            self.machine.stats()
        self.assertEqual(Function(self.machine, 1, 0).config(4, 0), 0xffffffff)

    def plug(self, **options):
        card = {"driver": "svio-nic", "id": "svio0", "bus": "rp0", "mac": MAC_TEXT}
        self.machine.qmp.command("device_add", {**card, **options})
        self.function = self.machine.function(bus=1)
        self.function.assign()
        self.driver = Driver(self.function)

    def test_netdev(self):
        """In every state; the netdev is free for the next card."""
        self.boot(pcie_port=True, cores=2)
        for n, state in enumerate(("fresh", "running", "flooded", "stopped", "bus master off", "held back")):
            with self.subTest(state=state):
                if state != "fresh":
                    self.driver.bring_up(fill=state != "held back")
                sender = flood(self.wire) if state in ("flooded", "held back", "stopped") else None
                if state == "held back":
                    self.wait_counter(1, "receive", "full")
                if state == "running":
                    self.check_both(n)
                if state == "stopped":
                    self.machine.stop()
                if state == "bus master off":
                    self.function.command(master=False)
                if state == "flooded":
                    for m in range(20):
                        self.driver.send.send(frame(900, m, to=PEER, source=MAC), bell=False)
                    self.driver.send.bell()
                canary = self.driver
                self.unplug()
                before = canary.snapshot()
                if sender:
                    sender.stop()
                if state == "stopped":
                    self.machine.cont()
                self.assertEqual(canary.snapshot(), before, "memory changed after the card was gone")
                self.plug(netdev="n0", cores=1 + n % 3)
                self.driver.bring_up()
                self.settle()
                self.check_both(n)

    def test_native_port(self):
        """Its socket is closed and removed with the card, and bound anew by the next one."""
        self.boot("native", pcie_port=True).bring_up()
        self.check_both()
        with flood(self.wire):
            self.unplug()
        with self.assertRaises(OSError):
            self.wire.sock.sendto(b"x" * 60, self.wire.local)
        self.plug(port=f"dgram:{self.wire.local},{self.wire.remote}")
        self.driver.bring_up()
        self.check_both()

    def test_migration_is_possible_without_the_card(self):
        self.boot(pcie_port=True).bring_up()
        self.unplug()
        self.machine.qmp.command("migrate", {"uri": "exec:cat>/dev/null"})
        self.wait(lambda: self.machine.qmp.command("query-migrate").get("status") == "completed",
                  "the migration")

    def test_unplug_by_reset(self):
        """A machine reset carries out what the guest has not."""
        self.boot(pcie_port=True).bring_up()
        self.machine.qmp.command("device_del", {"id": "svio0"})
        self.machine.qmp.command("system_reset")
        self.wait(lambda: not self.machine.threads(), "the end of all on-board cores")

    def test_many_times(self):
        self.boot(pcie_port=True)
        for n in range(15):
            self.driver.bring_up()
            self.check_both(n)
            self.unplug()
            self.plug(netdev="n0", cores=1 + n % 16)
        self.driver.bring_up()
        self.check_both()


if __name__ == "__main__":
    unittest.main()
