# SPDX-License-Identifier: GPL-2.0-or-later
"""What the test cases share: machines with the device in them, and the usual questions."""
import os
import shutil
import tempfile
import unittest

import abi
from driver import Driver
from machine import PLUGIN, Function, Machine, wait_for
from wires import MAC, PEER, Background, DgramWire, frame

MAC_TEXT = ":".join(f"{byte:02x}" for byte in MAC)


class DeviceCase(unittest.TestCase):
    """A test that starts machines; whatever it leaves behind is ended, and QEMU must end well."""

    plugin = PLUGIN

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="svio-device-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.machine = self.wire = self.function = self.driver = None

    def start(self, *arguments, machine="q35"):
        """A machine; it is ended in an orderly way if the test went well."""
        folder = tempfile.mkdtemp(prefix="vm-", dir=self.folder)
        vm = Machine(*arguments, machine=machine, folder=folder, plugin=self.plugin)
        self.addCleanup(self._end, vm)
        return vm

    def _end(self, vm):
        # What went wrong is reported once: a failed test has no orderly end to check.
        if getattr(self._outcome, "success", True):
            vm.quit()
        else:
            vm.kill()

    def make_wire(self, name="wire"):
        wire = DgramWire(self.folder, name)
        self.addCleanup(wire.close)
        return wire

    def boot(self, kind="netdev", options="", machine="q35", extra=(), cores=1, pcie_port=False):
        """One machine with one card on a wire that the test holds: self.machine, .wire, .function, .driver.

        kind: "netdev" or "native"; pcie_port: behind a PCI Express root port.
        """
        self.wire = self.make_wire(f"wire{os.urandom(3).hex()}")
        device = f"svio-nic,id=svio0,mac={MAC_TEXT},cores={cores}"
        arguments = list(extra)
        if kind == "netdev":
            arguments += self.wire.netdev()
            device += ",netdev=n0"
        else:
            device += "," + self.wire.native()
        if pcie_port:
            arguments += ["-device", "pcie-root-port,id=rp0,bus=pcie.0,addr=0x4,chassis=1,slot=1"]
            device += ",bus=rp0"
        arguments += ["-device", device + ("," + options if options else "")]
        self.machine = self.start(*arguments, machine=machine)
        if pcie_port:
            self.machine.open_bridge(Function(self.machine, 0, 4), 1)
        self.function = self.machine.function(bus=1 if pcie_port else 0)
        self.function.assign()
        self.driver = Driver(self.function)
        return self.driver

    # ---- questions ----

    def wait(self, condition, what):
        return wait_for(condition, what, alive=self.machine.alive)

    def counter(self, *path):
        value = self.machine.vif()
        for name in path:
            value = value[name]
        return value

    def wait_counter(self, at_least, *path):
        self.wait(lambda: self.counter(*path) >= at_least, f"{'.'.join(path)} >= {at_least}; now "
                  f"{self.counter(*path)}")

    def check_out(self, data, pieces=1, driver=None):
        """The card sends; the wire carries exactly this."""
        (driver or self.driver).transmit(data, pieces)
        self.assert_frame(self.wire.receive(), data)

    def check_in(self, data, driver=None):
        """The wire carries; the driver gets exactly this."""
        self.assertTrue(self.wire.send(data))
        self.assert_frame((driver or self.driver).expect(f"a frame of {len(data)} bytes"), data)

    def check_both(self, seed=0, driver=None, size=200):
        self.check_out(frame(size, seed, to=PEER, source=MAC), driver=driver)
        self.check_in(frame(size, seed + 1), driver=driver)

    def check_full_ring(self):
        """64 messages are posted before the one bell that announces them."""
        data = [frame(100 + n, n, to=PEER, source=MAC) for n in range(64)]
        for one in data:
            self.driver.send.send(one, bell=False)
        self.driver.send.bell()
        for one in data:
            self.assert_frame(self.wire.receive(), one)
        self.driver.send.wait_done()

    def settle(self):
        """Takes whatever a flood has left in sockets and rings, in both directions."""
        mark = frame(333, 4711, kind=0x88b6)
        with Background(self.wire, [mark]):
            self.wait(lambda: self.driver.receive.take() == mark, "the mark behind the flood")
        self.wire.drain()

    def assert_frame(self, found, wanted):
        if found != wanted:
            found = found or b""
            differ = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), "the end")
            self.fail(f"{len(found)} bytes instead of {len(wanted)}, the first difference is at {differ}")

    def assert_bad_access(self, action, count=1):
        """The action is a bad access: counted, without consequence. Returns what it returned."""
        before = self.counter("bad_register")
        value = action()
        self.assertEqual(self.counter("bad_register") - before, count)
        return value

    def assert_fresh(self):
        """All registers are as after a reset."""
        driver = self.driver
        self.assertEqual(driver.status & ~abi.SVIO_STATUS_LINK_UP, abi.SVIO_STATUS_READY)
        zero = [abi.SVIO_REG_CONTROL, abi.SVIO_REG_EVENT, abi.SVIO_REG_DRIVER_FEATURES_LO,
                abi.SVIO_REG_DRIVER_FEATURES_HI, abi.SVIO_REG_MAILBOX_STATE]
        zero += [abi.SVIO_REG_MAILBOX + 4 * i for i in range(16)]
        no_vector = [abi.SVIO_REG_EVENT_VECTOR]
        for direction in (abi.SVIO_SEND, abi.SVIO_RECEIVE):
            zero += [abi.SVIO_QUEUE_REG(0, direction, register) for register in (
                abi.SVIO_QUEUE_BASE_LO, abi.SVIO_QUEUE_BASE_HI, abi.SVIO_QUEUE_EVENT_LO,
                abi.SVIO_QUEUE_EVENT_HI, abi.SVIO_QUEUE_SIZE, abi.SVIO_QUEUE_CONTROL, abi.SVIO_QUEUE_STATE,
                abi.SVIO_QUEUE_POSITION, abi.SVIO_QUEUE_MODERATION)]
            no_vector.append(abi.SVIO_QUEUE_REG(0, direction, abi.SVIO_QUEUE_VECTOR))
        for register in zero:
            self.assertEqual(driver.read(register), 0, f"register {register:#x}")
        for register in no_vector:
            self.assertEqual(driver.read(register), abi.SVIO_NO_VECTOR, f"register {register:#x}")
