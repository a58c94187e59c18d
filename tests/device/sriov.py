# SPDX-License-Identifier: GPL-2.0-or-later
"""Extended configuration space, the SR-IOV capability, and VFs as an operating system sets them up."""
import abi
from case import DeviceCase
from driver import Driver
from machine import COMMAND, Function
from wires import PEER, frame

ECAM = 0xb0000000           # where these tests put it: q35 has a register for that
MCH_PCIEXBAR = 0x60
EXT_ARI, EXT_SRIOV = 0x0e, 0x10
PORT_BUS = 1

# In the SR-IOV capability
CAPS, CONTROL, STATUS, INITIAL, TOTAL, NUM, LINK, OFFSET, STRIDE, VF_ID, PAGES, PAGE, BARS, MIGRATION = (
    0x04, 0x08, 0x0a, 0x0c, 0x0e, 0x10, 0x12, 0x14, 0x16, 0x1a, 0x1c, 0x20, 0x24, 0x3c)
CONTROL_ENABLE, CONTROL_MEMORY, CONTROL_ARI = 0x01, 0x08, 0x10

PF_BARS = 0xe0000000
VF_REGS, VF_MSIX = 0xe1000000, 0xe2000000


class ExpressFunction(Function):
    """All 4 KiB of configuration space, by memory accesses."""

    def __init__(self, machine, bus, devfn):
        super().__init__(machine, bus, devfn >> 3, devfn & 7)
        self.ecam = ECAM + (bus << 20 | devfn << 12)

    def config(self, size, offset):
        return self.machine.qtest.load(size, self.ecam + offset)

    def config_write(self, size, offset, value):
        self.machine.qtest.store(size, self.ecam + offset, value)

    def bytes(self, offset=0, length=4096):
        words = self.machine.qtest.batch([f"readl {self.ecam + at:#x}"
                                          for at in range(offset, offset + length, 4)])
        return b"".join(int(word, 16).to_bytes(4, "little") for word in words)

    def extended_capabilities(self):
        """{ID: (version, offset)}"""
        found, at = {}, 0x100
        while at:
            head = self.config(4, at)
            if head == 0:
                break
            assert head & 0xffff not in found, "an extended capability twice"
            found[head & 0xffff] = (head >> 16 & 0xf, at)
            at = head >> 20
        return found


def open_ecam(machine):
    machine.qtest.out(4, 0xcf8, 0x80000000 | MCH_PCIEXBAR)
    machine.qtest.out(4, 0xcfc, ECAM | 1)


class Physical(ExpressFunction):
    """A PF on the bus behind the root port."""

    def __init__(self, machine, devfn=0):
        open_ecam(machine)
        super().__init__(machine, PORT_BUS, devfn)
        self.first = devfn
        self.cap = self.extended_capabilities()[EXT_SRIOV][1]

    def read_cap(self, size, register):
        return self.config(size, self.cap + register)

    def write_cap(self, size, register, value):
        self.config_write(size, self.cap + register, value)

    def assign(self, base=PF_BARS):
        super().assign(base)
        for bar, address in ((abi.SVIO_BAR_REGS, VF_REGS), (abi.SVIO_BAR_MSIX, VF_MSIX)):
            self.write_cap(4, BARS + 4 * bar, address)
            self.write_cap(4, BARS + 4 * bar + 4, 0)

    def enable(self, count):
        """As Linux does: VFs may be looked for when this returns."""
        if self.read_cap(2, CONTROL) & CONTROL_ENABLE:
            self.disable()
        self.write_cap(2, NUM, count)
        self.write_cap(2, CONTROL, CONTROL_ENABLE | CONTROL_MEMORY)

    def disable(self):
        self.write_cap(2, CONTROL, 0)
        self.write_cap(2, NUM, 0)

    def virtual(self, number):
        """VF `number`, from 1 on as slots are, with memory and bus mastering enabled."""
        function = self.hidden(number)
        function.bars = {abi.SVIO_BAR_REGS: VF_REGS + (number - 1) * abi.SVIO_BAR_REGS_SIZE,
                         abi.SVIO_BAR_MSIX: VF_MSIX + (number - 1) * abi.SVIO_BAR_MSIX_SIZE}
        function.command(memory=True, master=True)
        return function

    def hidden(self, number):
        return ExpressFunction(self.machine, PORT_BUS, self.first + abi.SVIO_PCI_VF_OFFSET +
                               (number - 1) * abi.SVIO_PCI_VF_STRIDE)

    def there(self, number):
        return self.hidden(number).config(2, COMMAND) != 0xffff


class SriovCase(DeviceCase):
    """Tests of a card with VFs: self.pf, and a Driver for each VF that is asked for."""

    kind = "native"
    SPAN = 512 << 10            # of RAM for the driver of a VF
    MEMORY = 16 << 20           # where the first of them begins

    def boot_sriov(self, vifs, options="", **more):
        # No test of this kind is about a wire that nobody reads for two seconds, and some may be that slow.
        options = f"vifs={vifs},port-stall-ms=0" + ("," + options if options else "")
        self.boot(self.kind, options, pcie_port=True, **more)
        self.find_pf()

    def find_pf(self):
        self.function = self.pf = Physical(self.machine)
        self.pf.assign()

    def virtual(self, number, up=True):
        """A driver for VF `number`, which is enabled; running, unless up is False."""
        memory = self.MEMORY + (number - 1) * self.SPAN
        driver = Driver(self.pf.virtual(number), memory, arena=128 << 10)
        driver.number = number
        driver.mac = self.mac_of(driver)
        driver.queues(64, 32, 2048)
        assert driver.next_free <= memory + self.SPAN
        return driver.bring_up() if up else driver

    @staticmethod
    def mac_of(driver):
        low, high = driver.read(abi.SVIO_REG_MAC_LO), driver.read(abi.SVIO_REG_MAC_HI)
        return low.to_bytes(4, "little") + high.to_bytes(2, "little")

    def vf_counter(self, number, *path):
        value = self.machine.vif(slot=number)
        for name in path:
            value = value[name]
        return value

    def check_vf_out(self, driver, seed=0, size=300):
        """VF to wire."""
        data = frame(size, seed, to=PEER, source=driver.mac)
        driver.transmit(data)
        self.assert_frame(self.wire.receive(), data)
