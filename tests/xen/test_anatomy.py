# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's Xen machine: a small measurement, and what a round trip is made of, whatever the speed."""
import unittest

from svio_tool import lab_host, setup, xen_anatomy, xen_bench

PATHS = ("split", "vif")


class TestAnatomy(unittest.TestCase):
    svio_patience = 1800

    @classmethod
    def setUpClass(cls):
        setup.ensure(["compile", "xen-image", "packages-bench"])
        cls.lab = cls.enterClassContext(
            xen_bench.XenLab(2, name="test-xen-lab", paths=PATHS, seconds=1, counting=True, tcp=True))

    def test_measurements(self):
        self.lab.hold([(kind, path, 1) for path in PATHS for kind in ("rtt", "tx")])
        for path in PATHS:
            cell = self.lab.cell("rtt", path)
            self.assertTrue(0 < cell["p50_us"] <= cell["p90_us"] <= cell["p99_us"], cell)
            self.assertEqual(cell["dropped"], 0)
            self.assertGreater(cell["switches"]["vcpu"], 0)
            cell = self.lab.cell("tx", path)
            self.assertGreater(cell["datagrams"], 1)
            self.assertGreater(cell["sent"], cell["datagrams"] / 2)
            self.assertGreater(self.lab.cell("rx", path)["messages"], 0)
        self.assertEqual(self.lab.cell("idle", "none", 0)["messages"], 0)

    def test_streams(self):
        """TCP between a guest and the host behind the wire's peer."""
        why = lab_host.tun_missing()
        if why:
            self.skipTest(f"not run: {why}")
        self.assertIsNone(self.lab.no_tcp)
        for path in PATHS:
            for kind in xen_bench.TCP:
                cell = self.lab.cell(kind, path)
                self.assertGreater(cell["stream_mbit_per_s"], 0)
                # Not less than the frames of that stream have passed the wire.
                self.assertGreater(cell["messages"] * cell["size"] * 8,
                                   cell["stream_mbit_per_s"] * 1e6 * self.lab.seconds / 2)

    def test_two_at_a_time(self):
        """Of each path: both guests are flooded, have streams of their own, and talk to each other."""
        why = lab_host.tun_missing()
        if why:
            self.skipTest(f"not run: {why}")
        kinds = ("rtt", "tx", "rx", *xen_bench.TCP, *xen_bench.BETWEEN)
        self.lab.hold([(kind, path, 2) for path in PATHS for kind in kinds])
        for path in PATHS:
            cells = {kind: self.lab.cell(kind, path, 2) for kind in kinds}
            self.assertGreater(min(cells["rx"]["each"]), 0)
            self.assertEqual(sum(cells["rx"]["each"]), cells["rx"]["messages"])
            for kind in set(kinds) - {"tx", "rx"}:
                self.assertEqual(len(cells[kind]["pairs"]), 2)
            for kind in ("rtt", "guest"):
                self.assertEqual(cells[kind]["dropped"], 0)
                self.assertGreater(min(one["samples"] for one in cells[kind]["pairs"]), 0)
            for kind in (*xen_bench.TCP, "guest_tcp"):
                self.assertGreater(min(one["stream_mbit_per_s"] for one in cells[kind]["pairs"]), 0)
            for one in cells["guest_tx"]["pairs"]:
                self.assertTrue(0 < one["received"] <= one["sent"], one)
            # Round trips of both: each guest's own device has told of them.
            for guest in self.lab.guests[path]:
                self.assertGreater(sum(cells["guest"]["interrupts"][guest.name].values()), 0)
                self.assertGreater(cells["guest"]["cpu_s"][guest.name], 0)

    def test_the_wire_has_no_address_of_a_guest(self):
        """Who asks for a guest's address has an answer of that guest, and not of the peer."""
        split, vif = (self.lab.guests[path][0] for path in PATHS)
        split.run(f"ping -c 1 -W 10 {vif.spec.address}")
        self.assertIn(vif.spec.mac, split.run(f"ip neigh show {vif.spec.address}").out)

    def test_round_trip(self):
        """netfront's frames go through dom0 by grants and event channels; nothing of that is true of a
        VIF's, and its doorbells are rare."""
        found, gone = xen_anatomy.measure(self.lab)
        counted = self.lab.counts_instructions()
        self.assertEqual(set(gone), set() if counted else {"guest instructions"}, gone)
        split, vif = found["split"], found["vif"]
        # One for each frame at least that netback copies, and two signals for each frame or pair of frames.
        self.assertGreater(split["xen"]["grants"], 0.9)
        self.assertGreater(split["xen"]["events"], 0.9)
        self.assertGreater(split["xen"]["switches"], 0.9)
        self.assertGreater(split["xen"]["hypercalls"], split["xen"]["grants"] + split["xen"]["events"])
        self.assertLess(vif["xen"]["grants"], 0.2)
        self.assertLess(vif["xen"]["events"], 0.2)
        # Of a frame to the wire netback copies 128 bytes and maps the rest; of one from it, all.
        self.assertAlmostEqual(split["copies"]["grants"], (128 + 1414) / (2 * 1414), delta=0.05)
        self.assertEqual(vif["copies"]["grants"], 0)
        for one in (split, vif):
            self.assertAlmostEqual(one["copies"]["system_calls"], 1, delta=0.1)
            self.assertGreater(one["system_calls"]["sendmmsg"], 0.01)
            if counted:
                self.assertGreater(one["instructions"], 1000)
        self.assertLess(sum(vif["accesses"].values()), 1)
        if counted:
            self.assertGreater(split["instructions"], vif["instructions"])
        self.assertEqual(self.lab.vm.kernel_problems() + self.lab.vm.guest_problems(), [])


if __name__ == "__main__":
    unittest.main()
