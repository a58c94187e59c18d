# SPDX-License-Identifier: GPL-2.0-or-later
"""What "xen bench" measures of how many guests at a time, and its arithmetic, without a machine."""
import json
import subprocess
import sys
import time
import unittest
import unittest.mock
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import lab_host, xen, xen_bench  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402
from svio_tool.xen_machine import Guest  # noqa: E402


class FakeGuest:
    """Of netfront. Whatever it runs has the output of its turn."""

    def __init__(self, number, said=None):
        self.spec, self.name, self.said = Guest(f"split{number}", "netfront", index=number), \
            f"split{number}", said
        self.read, self.ran = 0, []

    def spawn(self, program):
        self.ran.append(program)
        return self

    def wait(self, _):
        self.rc, self.out, self.err = 0, self.said, ""
        return self

    def get(self, path):
        if path == "/proc/net/snmp":
            self.read += 100 * self.spec.index
            return f"Udp: InDatagrams NoPorts\nUdp: {self.read} 9\n".encode()
        return f"{time.monotonic() + 100:.2f} 3.00\n".encode()         # /proc/uptime


class FakePeer:
    def __init__(self):
        self.asked, self.answered, self.taken, self.ports = [], 0, 0, 0

    def ask(self, words):
        self.asked.append(words)
        return {"wires": {"wire": {"udp_echo": self.answered, "sink": {"datagrams": self.taken},
                                   "tap_in": 30, "tap_out": 40}}}

    @contextmanager
    def servers(self, _wire, count):
        self.ports = count
        yield


class FakeLab(xen_bench.XenLab):
    def __init__(self, guests, said=""):
        super().__init__(guests, seconds=0)
        self.guests = {"split": [FakeGuest(n, said) for n in range(1, guests + 1)]}
        self.peer = FakePeer()
        self.wires = {"wire": xen_bench.Wire("svio-nic", "native", "wire", 1, Path("/"), True)}
        self.received = 0

    def snapshot(self, guests):
        self.received += 1000
        return {"received": {guest.name: self.received * guest.spec.index for guest in guests}}

    def difference(self, before, after):
        return {}

    @staticmethod
    def ran(guest):
        """What the guest ran, without what it waited for."""
        return [program.rsplit("; ", 1)[-1] for program in guest.ran]


SENT = "sockperf: Total of 900 messages sent in 2.000 sec"
STREAM = json.dumps({"end": {"sum_received": {"bits_per_second": 5e6}, "sum_sent": {"retransmits": 2}}})


class AtOnce(unittest.TestCase):
    def names(self, lab, count):
        return [(one.name, other.name) for one, other in lab.conversations("split", count)]

    def test_who_asks_whom(self):
        """Two of four ask with nothing else to do; four answer their neighbour, too."""
        lab = FakeLab(4)
        self.assertEqual(self.names(lab, 1), [("split1", "split2")])
        self.assertEqual(self.names(lab, 2), [("split1", "split2"), ("split3", "split4")])
        self.assertEqual(sorted(self.names(lab, 4)), [("split1", "split2"), ("split2", "split1"),
                                                      ("split3", "split4"), ("split4", "split3")])
        self.assertEqual(self.names(FakeLab(2), 2), [("split1", "split2"), ("split2", "split1")])

    def test_held_programs(self):
        lab = FakeLab(4)
        for kind, target in (("rtt", "10.88.0.1"), ("tx", "10.88.0.1"), ("guest", "10.88.0.12"),
                             ("guest_tx", "10.88.0.12")):
            for count in (1, 2, 4):
                programs = lab.programs(kind, "split", count)
                self.assertEqual(len({guest.name for guest, _ in programs}), count)
                self.assertIn(f" -i {target} ", programs[0][1])
        for kind in ("rx", "guest_tcp", *xen_bench.TCP):
            self.assertEqual(lab.programs(kind, "split", 4), [])

    def test_floods(self):
        """Each guest has its own, all end together, and the rate is the sum."""
        lab = FakeLab(4)
        patch = unittest.mock.patch.object(xen_bench, "FLOOD_SECONDS", 0)
        patch.start()
        self.addCleanup(patch.stop)
        cell = lab.cell("rx", "split", 4)
        self.assertEqual(lab.peer.asked, [f"flood wire 00:16:3e:78:65:0{n} 10.88.0.1{n} 1400"
                                          for n in (1, 2, 3, 4)] + ["flood wire off"])
        self.assertEqual((cell["each"], cell["messages"], cell["guests"]),
                         ([1000, 2000, 3000, 4000], 10000, 4))
        self.assertAlmostEqual(cell["per_s"], 10000 / cell["seconds"])
        lab.snapshot = lambda guests: {"received": {one.name: 0 for one in guests}}
        with self.assertRaisesRegex(SvioError, "Nothing of the flood came to guest split1"):
            lab.receiving("split", 2)

    def test_streams(self):
        """A server and a port for each guest."""
        for kind, reverse in (("tcp_tx", False), ("tcp_rx", True)):
            lab = FakeLab(4, STREAM)
            cell = lab.cell(kind, "split", 2)
            self.assertEqual((cell["stream_mbit_per_s"], cell["retransmits"], cell["messages"]), (10, 4, 70))
            self.assertEqual(lab.peer.ports, 2)
            self.assertEqual([lab.ran(guest) for guest in lab.guests["split"]],
                             [[f"iperf3 -c 10.88.0.1 -p {lab_host.PORT + n} -t 0 -J" + " -R" * reverse]
                              for n in (0, 1)] + [[], []])

    def test_all_begin_at_the_same_time(self):
        """The moment is told by each guest's own clock. One guest alone has nobody to wait for."""
        lab = FakeLab(2, SENT)
        lab.run(lab.guests["split"][:1], "tx1")
        program, = lab.guests["split"][0].ran
        self.assertNotIn("/proc/uptime", program)
        lab.guests["split"][0].ran.clear()
        begin = time.monotonic()
        lab.run(lab.guests["split"], "tx2")
        self.assertGreaterEqual(time.monotonic() - begin, 2 * xen_bench.LEAD)
        for guest in lab.guests["split"]:
            program, = guest.ran
            read, at, go = program.index("read -r pid <tx2.pid"), program.index("left=$(("), \
                program.index("kill -CONT $pid")
            self.assertTrue(read < at < go, program)
            hundredths = int(program[at + len("left=$(("):].split()[0])
            self.assertAlmostEqual(hundredths / 100, begin + 100 + 2 * xen_bench.LEAD, delta=1)

    def test_the_wait(self):
        """As the guest's shell has it: it ends at the moment, and at once where that has passed."""
        def up():
            return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        for ahead in (0.37, 1.02):
            at = round(100 * (up() + ahead))
            subprocess.run(["sh", "-c", xen_bench.AWAIT_SH.format(at=at)], check=True, timeout=60)
            self.assertGreaterEqual(round(100 * up()), at)
        subprocess.run(["sh", "-ec", xen_bench.AWAIT_SH.format(at=round(100 * up()) - 500)
                        + '[ "$left" -lt 0 ]'], check=True, timeout=60)

    def test_between_guests(self):
        cell = FakeLab(4, SENT).cell("guest_tx", "split", 2)
        # The second and the fourth of the guests read; their counts grow by a hundred times their number.
        self.assertEqual((cell["kind"], cell["peer"], cell["messages"], cell["sent"]),
                         ("tx", "guest", 600, 1800))
        self.assertEqual(cell["per_s"], 300)
        lab = FakeLab(4, STREAM)
        cell = lab.cell("guest_tcp", "split", 4)
        self.assertEqual((cell["kind"], cell["peer"], cell["stream_mbit_per_s"]), ("tcp_tx", "guest", 20))
        self.assertEqual([lab.ran(guest) for guest in lab.guests["split"]],
                         [[f"iperf3 -c 10.88.0.1{n} -t 0 -J"] for n in (2, 1, 4, 3)])
        for lab.peer.answered, lab.peer.taken in ((1, 0), (0, 1)):
            with self.assertRaisesRegex(SvioError, "in the place of a guest"):
                lab.cell("guest_tcp", "split", 1)


def cell(number, path, kind, peer, guests, value, dom0=1.0):
    return {"round": number, "path": path, "kind": kind, "peer": peer, "guests": guests, "size": 64,
            xen_bench.FIGURES.get(kind, "per_s"): value, "p99_us": 3 * value, "messages": 100,
            "interrupts": {}, "cpu_s": {"dom0": dom0, "split1": 0.5, "split2": 0.25, "vif1": 0.1}}


CELLS = [cell(number, path, kind, peer, guests, value * number)
         for number in (1, 2, 3) for path, value in (("split", 100), ("vif", 50))
         for kind, peer in (("rtt", "wire"), ("tx", "wire"), ("rx", "wire"), ("tcp_tx", "wire"),
                            ("rtt", "guest"), ("tx", "guest"), ("tcp_tx", "guest")) for guests in (1, 2)]


class Figures(unittest.TestCase):
    def test_plan(self):
        """Everything for 1, 2 and 4 guests; a demo has one, who has nobody to talk to."""
        cells = xen_bench.plan(4, False, xen_bench.TCP)
        self.assertEqual(len(cells), len(set(cells)))
        self.assertEqual(set(cells), {("idle", "none", 0)} | {
            (kind, path, count) for path in ("split", "vif") for count in (1, 2, 4)
            for kind in ("rtt", "tx", "rx", "tcp_tx", "tcp_rx", "guest", "guest_tx", "guest_tcp")})
        self.assertEqual(set(xen_bench.plan(1, True)), {("idle", "none", 0)} | {
            (kind, path, 1) for path in ("split", "vif") for kind in ("rtt", "tx", "rx")})
        self.assertEqual({count for *_, count in xen_bench.plan(2, False)}, {0, 1, 2})
        self.assertEqual({kind for kind, *_ in cells}, set(xen_bench.WORDS))

    def test_ratios(self):
        found = xen_bench.ratios(CELLS)
        self.assertEqual(set(found), {f"{name}_{count}" for count in (1, 2) for name in (
            "p50", "p99", "tx", "rx", "tcp_tx", "p50_guest", "p99_guest", "tx_guest", "tcp_tx_guest")})
        self.assertEqual({one["value"] for one in found.values()}, {0.5})
        self.assertEqual(xen_bench.measured(CELLS)[:3], [("rtt", "wire", 1), ("rtt", "wire", 2),
                                                         ("tx", "wire", 1)])
        self.assertEqual(xen_bench.measured(CELLS)[-1], ("tcp_tx", "guest", 2))
        self.assertEqual({one[:2] for one in xen_bench.measured(CELLS)} | {("idle", "none"),
                                                                           ("tcp_rx", "wire")},
                         set(xen.TITLES))

    def test_whose_time_it_is(self):
        idle = {**cell(1, "none", "idle", "none", 0, 0, dom0=0.2)}
        found = xen_bench.cpu_shares([*CELLS, idle])
        self.assertEqual(found[0][:2], (("idle", "none", 0), "none"))
        self.assertEqual((found[0][2]["value"], found[0][3]["value"]), (0.2, 0))
        self.assertEqual({(path, dom0["value"], guests["value"]) for _, path, dom0, guests in found[1:]},
                         {("split", 1.0, 0.75), ("vif", 1.0, 0.1)})
        found = xen_bench.per_message(CELLS, "split", "tx", guests=1, peer="guest")
        self.assertEqual(found["guest_us"], 7500)


if __name__ == "__main__":
    unittest.main()
