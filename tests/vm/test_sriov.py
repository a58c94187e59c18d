# SPDX-License-Identifier: GPL-2.0-or-later
"""The card as an SR-IOV NIC: traffic between VFs, PF and wire; VFs that come and go, resets, a hostile VF."""
import contextlib
import random

from case import wait_for
from sleep import MAY_SLEEP, Sleeper
from sriov import KIB, VIFS, SriovCase
from svio_tool.paths import hostile_module
from svio_tool.worker import long


class Plain:
    """What needs no management."""

    def test_lspci(self):
        out = self.run_in(f"lspci -vvv -s {self.place}")
        self.assertIn("Single Root I/O Virtualization (SR-IOV)", out)
        self.assertRegex(out, rf"Initial VFs: {VIFS}, Total VFs: {VIFS}, Number of VFs: 2")
        self.assertRegex(out, r"VF offset: 128, stride: 2, Device ID: 5111")
        self.assertIn("Kernel driver in use: svio", out)
        out = self.run_in(f"lspci -v -s {self.vf_place(1)}")
        self.assertIn("MSI-X: Enable+", out)
        self.assertIn("Kernel driver in use: svio", out)

    def test_matrix(self):
        for one, other in (("v0", "v1"), ("v0", "P"), ("v1", "W"), ("P", "W")):
            self.wait_answer(one, other)
        before = self.vif("far")
        self.transfers(["P", "v0", "v1", "W"])
        after = self.vif("far")
        # The wire saw what concerned it, and not what went from VIF to VIF: six of the twelve files.
        for counter in ("rx_bytes", "tx_bytes"):
            self.assertLess(after[counter] - before[counter], 5 * 256 * KIB, counter)

    def test_broadcast(self):
        """One copy to each of the others, none back."""
        names = ["v0", "v1"]
        before = {ns: self.counters(int(ns[1:]))["rx_broadcast"] for ns in names}
        self.run_in("ip netns exec v0 arping -q -b -c 3 -w 10 -I vf0 10.9.0.99; true")
        self.wait_counter(1, "rx_broadcast", before["v1"] + 3)
        self.assertEqual(self.counters(0)["rx_broadcast"], before["v0"])

    def test_spoofed(self):
        """A foreign source MAC is dropped and counted."""
        self.spoof()


class Life(Sleeper):
    """VFs that come and go, and resets."""

    def cycles(self, rounds):
        """sriov_numvfs 0 and N under traffic of VFs, PF and wire; the PF's own is not disturbed."""
        self.set_number(0)
        stream = self.steady("P", "W")
        for number in range(rounds):
            count = random.choice((1, 2, 4, VIFS)) if number else VIFS
            self.set_number(count)
            self.take(0)
            streams = [self.steady("v0", "W")]
            if count > 1:
                self.take(1)
                self.wait_answer("v1", "v0")
                streams.append(self.steady("v1", "v0"))
            before = self.counters(0)["tx_frames"]
            self.wait(lambda before=before: self.counters(0)["tx_frames"] > before + 20, "the VF's traffic")
            self.set_number(0)
            for process in streams:
                process.kill()
            self.assertIsNone(stream.poll())
        stream.kill()
        self.enable(2)
        self.transfers(["P", "v0", "v1", "W"], 64)

    def test_cycles(self):
        self.cycles(3)

    @long
    def test_fifty_cycles(self):
        self.cycles(50)

    def test_reload(self):
        """The PF's driver goes and comes while VFs carry traffic: they go with it, and come again."""
        stream = self.steady("v0", "v1")
        self.run_in(f"echo {self.place} >/sys/bus/pci/drivers/svio/unbind")
        self.assertEqual(self.number(), 0)
        stream.kill()
        self.run_in(f"echo {self.place} >/sys/bus/pci/drivers/svio/bind")
        self.name_interfaces(self.card["pf"])
        self.run_in("ip link set pf up && ip address replace 10.9.0.1/24 dev pf")
        self.enable(2)
        self.wait_answer("v0", "P")
        # One VF alone: the others do not notice.
        place = self.vf_place(1)
        stream = self.steady("v0", "W")
        for _ in range(3):
            self.run_in(f"echo {place} >/sys/bus/pci/drivers/svio/unbind && "
                        f"echo {place} >/sys/bus/pci/drivers/svio/bind")
            self.take(1)
        self.assertIsNone(stream.poll())
        stream.kill()
        self.transfers(["v0", "v1", "W"], 64)

    def test_module(self):
        """The module goes with PF and VFs, and comes."""
        self.run_in("rmmod svio && modprobe svio")
        self.name_interfaces(*self.card.values())
        self.run_in("ip link set far netns W")
        self.settle("W", "far")
        self.run_in("ip link set pf up && ip address replace 10.9.0.1/24 dev pf")
        self.enable(2)
        self.transfers(["P", "v0", "v1", "W"], 64)

    def test_reset_vf(self):
        """A function-level reset of one VF: it goes on, and the others do not notice."""
        self.wait_answer("v1", "W")
        stream = self.steady("v1", "W")
        for _ in range(2):
            self.run_in(f"echo 1 >/sys/bus/pci/devices/{self.vf_place(0)}/reset")
            self.wait_answer("v0", "v1")
        self.assertIsNone(stream.poll())
        stream.kill()
        self.transfers(["v0", "v1", "W"], 64)

    def test_reset_pf(self):
        """One of the PF takes its VFs along, and all come back."""
        self.run_in(f"echo 1 >{self.pci}/reset")
        self.assertEqual(self.number(), 2)
        self.wait_answer("v0", "v1")
        self.wait_answer("v1", "P")
        self.transfers(["P", "v0", "v1", "W"], 64)

    def test_suspend(self):
        """To idle and, as far as the kernel tests it itself, to RAM: PF and VFs come back as they were. Not
        all the way: after a q35 of QEMU 10.0 has slept its firmware leaves the window of the extended
        configuration space closed, in which SR-IOV is."""
        self.set_vf(0, "max_tx_rate 800")
        for state, level in (("freeze", "devices"), ("mem", "platform")):
            if state not in self.run_in("cat /sys/power/state").split():
                continue
            self.sleep(state, level)
            for ns in ("P", "v0", "v1"):
                self.wait_carrier(ns)
            self.wait_answer("v0", "v1")
            self.transfers(["P", "v0", "v1", "W"], 64)
            self.assertEqual(self.link_of(0)["rate"]["max_tx"], 800)
        self.set_vf(0, "max_tx_rate 0")

    def test_too_many(self):
        self.assertNotEqual(self.vm.run(f"echo {VIFS + 1} >{self.pci}/sriov_numvfs", check=False).rc, 0)
        self.assertEqual(self.number(), 2)


class Hostile:
    OPERATIONS, MOVED = 60_000, 1 << 20

    def test_hostile(self):
        """A VF's guest writes nonsense into all that it can reach, at full speed; another VF's transfer is
        whole, and the attacked one works again."""
        seed = random.randrange(1 << 31)
        print(f"attack on a VF: seed={seed}")
        self.vm.put("/tmp/svio_hostile.ko", hostile_module(self.vm.kernel).read_bytes())
        place = self.vf_place(0)
        device = f"/sys/bus/pci/devices/{place}"
        self.wait_answer("v1", "W")
        self.run_in(f"""set -e
            echo {place} >/sys/bus/pci/drivers/svio/unbind
            echo svio-hostile >{device}/driver_override
            insmod /tmp/svio_hostile.ko threads=4 ops={100 * self.OPERATIONS} ram_end={640 << 20} seed={seed}
            [ "$(basename "$(readlink {device}/driver)")" = svio-hostile ]""")
        try:
            moved = self.moving(lambda: int(self.run_in(f"cat {device}/done").split()[0]))
        finally:
            self.run_in(f"""set -e
                rmmod svio_hostile
                echo >{device}/driver_override
                echo {place} >/sys/bus/pci/drivers/svio/bind""")
        self.assertGreaterEqual(moved, self.MOVED)
        self.take(0)
        after = self.counters(0)
        for counter in ("bad_register", "queue_errors", "commands_refused", "resets"):
            self.assertGreater(after[counter], 0, counter)
        self.assertEqual(self.counters(1)["queue_errors"], 0)
        self.transfers(["P", "v0", "v1", "W"], 64)
        self.set_number(0)          # its counters are no worry of the next test

    def moving(self, operations):
        """Bytes from VF 1 to the wire's far end, until the attack has done its work; sums compared."""
        self.run_in("rm -f /tmp/sum /tmp/go; mkfifo /tmp/sum; touch /tmp/go")
        receiver = self.start_process("ip netns exec W socat -u TCP4-LISTEN:5009,reuseaddr STDOUT | "
                                      "sha256sum")
        self.wait(lambda: ":5009 " in self.run_in("ip netns exec W ss -Hltn"), "the receiver listens")
        sender = self.start_process(
            "sha256sum </tmp/sum & while [ -e /tmp/go ]; do head -c 100000 /dev/urandom; done | "
            f"tee /tmp/sum | ip netns exec v1 socat -u STDIN TCP4:{self.address('W')}:5009; wait")
        start = self.counters(1)["tx_bytes"]

        def moved():
            return self.counters(1)["tx_bytes"] - start
        with contextlib.ExitStack() as stack:
            stack.callback(self.run_in, "rm -f /tmp/go")
            wait_for(lambda: operations() >= self.OPERATIONS and moved() >= self.MOVED,
                     lambda: f"{operations()} operations, {moved()} bytes", 300, 0.5)
            result = moved()
        sums = [process.wait(300).out.split() for process in (sender, receiver)]
        self.assertEqual(len(sums[0]), 2)
        self.assertEqual(sums[0], sums[1])
        return result


class TestSriov(Plain, Life, Hostile, SriovCase):
    NAME, EXTRA = "sriov", MAY_SLEEP["q35"]

    def test_zz_healthy(self):
        """Nothing of all that was a fault of the cards' drivers."""
        self.assertEqual(self.leaks(), "")
        self.assertEqual(self.vm.kernel_problems(), [])
        for name in ("pf", "far"):
            driver = self.ethtool(self.card[name], "" if name == "pf" else "ip netns exec W")
            wrong = {key: driver[key] for key in ("resets", "tx_timeouts", "dev_queue_errors") if driver[key]}
            self.assertEqual(wrong, {}, name)
