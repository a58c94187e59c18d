# SPDX-License-Identifier: GPL-2.0-or-later
"""Unplugging a card from a running machine and plugging another one in."""
import unittest

from case import MAC_TEXT, DeviceCase
from driver import Driver
from machine import Function
from sriov import SriovCase
from svio_tool.qmp import QmpError
from wires import MAC, PEER, flood, frame

PCIHP, SELECT, EJECT = 0x0cc0, 0x10, 0x08  # ACPI PCI hot-plug registers of q35


class Plugging:
    """Both ways, for a machine whose card svio0 is behind the port rp0."""

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


class Hotplug(Plugging, DeviceCase):
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


class WithVfs(Plugging, SriovCase):
    """A card with VFs, enabled or not, at work or not."""

    def test_unplugged_under_traffic(self):
        self.boot_sriov(8, cores=2)
        for round_, count in enumerate((8, 0, 3)):
            self.driver.bring_up()
            self.pf.enable(count)
            drivers = [self.virtual(number) for number in range(1, count + 1, 2)]
            with flood(self.wire, drains=True):
                for driver in drivers:
                    driver.send.vector = driver.receive.vector = 2
                    driver.vectors()
                    for n in range(50):
                        driver.send.send(frame(1100, n, to=PEER, source=driver.mac), bell=False)
                    driver.send.bell()
                self.unplug()
                canary = [driver.snapshot() for driver in drivers]
                self.assertFalse(self.pf.there(1))
            self.wire.drain()
            self.plug(port=f"dgram:{self.wire.local},{self.wire.remote}", vifs=8)
            self.assertEqual([driver.snapshot() for driver in drivers], canary, "memory changed")
            self.find_pf()
            self.assertFalse(self.pf.there(1))
            self.pf.enable(8)
            self.check_vf_out(self.virtual(8), round_)
            self.driver.bring_up()
            self.check_both(round_)
            self.pf.disable()

    def test_refused(self):
        """What cannot be plugged in leaves nothing behind."""
        self.boot_sriov(2)
        self.unplug()
        for options, sentence in (({"vifs": 65}, "vifs=65 is more than 64"),
                                  ({"vifs": 64, "addr": "2"}, "not be on the bus any more"),
                                  ({"vifs": 2, "port": "x"}, "port=x")):
            with self.assertRaisesRegex(QmpError, sentence):
                self.plug(**options)
            self.assertEqual(self.machine.threads(), [])
        self.plug(port=f"dgram:{self.wire.local},{self.wire.remote}", vifs=2)
        self.find_pf()
        self.pf.enable(2)
        self.check_vf_out(self.virtual(2))


if __name__ == "__main__":
    unittest.main()
