# SPDX-License-Identifier: GPL-2.0-or-later
"""One's own VM: a Debian that knows nothing of svio gets the driver's package, uses it, and reboots."""
import os
import time
import unittest

from image import debian
from svio_tool import package, setup, transfer
from svio_tool.agent import Agent
from svio_tool.disk_vm import DiskVm, examine
from svio_tool.paths import DRIVER_DISK
from svio_tool.worker import long

# Not measures of speed: an emulated guest on a busy host compiles for many minutes.
BOOT, BUILD = 1200, 3600


@long
class TestOwnVm(unittest.TestCase):
    """The tests are steps, run in the order of their names; each fails by itself when one before it did."""

    svio_patience = 2 * BUILD

    @classmethod
    def setUpClass(cls):
        if os.geteuid():
            raise unittest.SkipTest("only root can make a disk with a Debian on it")
        setup.ensure(["packages-disk", "driver-disk"])
        cls.vm = cls.enterClassContext(DiskVm(
            "test-own-vm", examine(debian.ensure()), share=DRIVER_DISK, boot_timeout=BOOT,
            nics=[f"svio-nic,id=svio0,netdev=n0,mac={transfer.MAC}"], netdevs=["user,id=n0"]))
        cls.kernel = cls.vm.run("uname -r").out.strip()

    def run_in(self, command, timeout=300):
        return self.vm.run(command, timeout=timeout).out

    def card(self):
        return self.run_in("grep -l 0x5110 /sys/bus/pci/devices/*/device").strip().rpartition("/")[0]

    def works(self, size):
        """Ping, and a file both ways with its sums compared; the board has counted the frames."""
        before = self.vm.stats()["vifs"]["0"]
        transfer.prepare_guest(self.vm)
        self.assertIn(" 5 received, ", self.run_in("ping -c 5 -i 0.2 -W 20 10.0.2.2"))
        figures = transfer.exchange(self.vm, size)
        self.assertTrue(figures["agree"])
        after = self.vm.stats()["vifs"]["0"]
        for way in ("send", "receive"):
            moved = sum(self.count(after, way)) - sum(self.count(before, way))
            self.assertGreater(moved, size // 131072, way)

    @staticmethod
    def count(vif, way):
        return [queues[way]["messages"] for queues in vif["queues"].values()]

    def test_1_the_card_is_there_and_has_no_driver(self):
        self.assertTrue(self.card())
        self.assertEqual(self.run_in(f"ls {self.card()} | grep -c ^driver$ || true").strip(), "0")
        self.assertNotIn("svio", self.run_in("cat /proc/modules; ls /usr/src; find /lib/modules -name svio*"))

    def test_2_the_package_is_installed_from_the_shared_disk(self):
        self.run_in("mount -o ro LABEL=SVIO /mnt")
        said = self.run_in("DEBIAN_FRONTEND=noninteractive apt-get install -y "
                           "/mnt/svio-dkms_*.deb </dev/null 2>&1", timeout=BUILD)
        status = self.run_in("dkms status svio").strip()
        self.assertEqual(status.replace(" ", ""),
                         f"svio/{package.version()},{self.kernel},x86_64:installed", said)
        path = self.run_in("modinfo -n svio").strip()
        self.assertRegex(path, rf"^/lib/modules/{self.kernel}/updates/dkms/svio\.ko(\.\w+)?$")

    def test_3_the_interface_works(self):
        self.run_in("modprobe svio && udevadm settle")
        self.assertEqual(self.run_in(f"readlink {self.card()}/driver").strip().rpartition("/")[2], "svio")
        self.works(16 << 20)

    def test_4_after_a_reboot_the_driver_loads_by_itself(self):
        before = self.run_in("cat /proc/sys/kernel/random/boot_id")
        self.vm.spawn("systemctl reboot")
        self.vm.agent.close()
        deadline = time.monotonic() + BOOT
        while True:
            self.vm.agent = Agent(self.vm.sockets / "agent", self.vm.check_alive)
            self.vm.agent.connect(BOOT)
            # The agent of before may still have answered.
            if self.vm.run("cat /proc/sys/kernel/random/boot_id", check=False).out not in ("", before):
                break
            self.assertLess(time.monotonic(), deadline, "the guest does not reboot")
            self.vm.agent.close()
            time.sleep(2)
        self.run_in("udevadm settle --timeout=120")
        self.assertIn("svio ", self.run_in("cat /proc/modules"))
        self.works(4 << 20)

    def test_5_the_kernel_has_nothing_to_complain_of(self):
        self.assertEqual([line for line in self.vm.kernel_problems() if "svio" in line], [])

    def test_6_the_package_goes_again(self):
        self.run_in("apt-get purge -y svio-dkms </dev/null 2>&1", timeout=BUILD)
        self.assertEqual(self.run_in("find /lib/modules -name svio*; dkms status svio"), "")
