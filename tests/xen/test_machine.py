# SPDX-License-Identifier: GPL-2.0-or-later
"""Real Xen, dom0 with the card, guests on netfront and on VIFs: what must hold whatever the speed."""
import os
import re
import threading
import time
import unittest

from svio_tool import setup, transfer
from svio_tool.ui import SvioError
from svio_tool.xen import USER_NETDEV
from svio_tool.xen_machine import DOM0_ADDRESS, WIRE_ADDRESS, Guest, XenMachine

SIZE = 16 * transfer.MIB
DEADLINE = 300
# What Xen says of a guest's trouble, of the IOMMU's and of its own.
XEN_PROBLEMS = re.compile(r"\(XEN\).*(\[VT-D\]|VT-d fault|[Ff]ault addr|Assertion|BUG|WARN|panic|"
                          r"Xen call trace)")


def wait_for(condition, what, timeout=DEADLINE):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.2)


class Fetch:
    """A guest gets a file of the host's and gives it back, beside what the test does meanwhile."""

    def __init__(self, guest):
        self.guest = guest
        self.error = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            exchange(self.guest)
        except SvioError as error:
            self.error = error

    def finish(self):
        self.thread.join()
        if self.error:
            raise self.error


def exchange(guest):
    """Down and up by TCP, the sums compared."""
    transfer.exchange(guest, SIZE, WIRE_ADDRESS)


def echo_answers(guest):
    heads, values = re.findall(r"^Icmp: (.*)$", guest.run("cat /proc/net/snmp").out, re.M)
    return int(dict(zip(heads.split(), values.split()))["InEchoReps"])


class TestMachine(unittest.TestCase):
    """One machine, two guests of each kind to begin with; tests run in the order of their names."""

    svio_patience = 1800

    @classmethod
    def setUpClass(cls):
        setup.ensure(["compile", "xen-image"])
        cls.xen = XenMachine("xen-test", vifs=4, netdevs=[USER_NETDEV], memory=3584)
        cls.addClassCleanup(cls.xen.stop)
        cls.xen.start()
        for spec in (Guest("split1", "netfront"), Guest("split2", "netfront"), Guest("vif1", "vif"),
                     Guest("vif2", "vif")):
            cls.xen.create(spec)

    def guests(self, *names):
        return [self.xen.guests[name] for name in names]

    def vif(self, slot):
        found = [vif for vif in self.xen.vif_list() if vif["slot"] == slot]
        return found[0] if found else None

    def ping(self, source, address, count=3):
        """Each is answered; ping itself waits for the last ones for two round trips only, the guest's kernel
        counts them whenever they come."""
        before = echo_answers(source)
        out = source.run(f"ping -c {count} -i 0.2 -W 10 -q {address}", check=False).out
        self.assertIn(f"{count} packets transmitted, ", out)
        wait_for(lambda: echo_answers(source) >= before + count, f"{count} answers of {address}\n{out}")

    def test_a_boots(self):
        info = self.xen.run("xl info").out
        self.assertRegex(info, r"virt_caps.*pv_directio")
        domains = self.xen.run("xl list").out
        for name in ("Domain-0", "split1", "split2", "vif1", "vif2"):
            self.assertIn(name, domains)
        # Each path is what it says: netfront without a PCI device, a VIF without netfront.
        for name in ("split1", "vif1"):
            modules = self.xen.guests[name].run("lsmod").out
            self.assertEqual(("xen_netfront" in modules, "svio" in modules),
                             (name == "split1", name == "vif1"), modules)
        interrupts = self.xen.guests["vif1"].run("cat /proc/interrupts").out
        self.assertRegex(interrupts, r"xen-pirq\s+-pcifront-msi-x\s+eth0-0")

    def test_b_the_toolstack_configures_vifs(self):
        for name in ("vif1", "vif2"):
            spec = self.xen.guests[name].spec
            vif = self.vif(spec.slot)
            self.assertEqual((vif["mac"], vif["vlan"], vif["trust"], vif["running"]),
                             (spec.mac, 0, False, True))
            self.assertIn(spec.mac, self.xen.guests[name].run("ip link show eth0").out)

    def test_c_all_pairs(self):
        guests = self.guests("split1", "split2", "vif1", "vif2")
        for source in guests:
            for address in [WIRE_ADDRESS, DOM0_ADDRESS] + [one.spec.address for one in guests
                                                           if one is not source]:
                with self.subTest(source=source.name, address=address):
                    self.ping(source, address)

    def test_d_tcp(self):
        for name in ("split1", "vif1"):
            with self.subTest(name):
                exchange(self.xen.guests[name])

    def test_e_tcp_from_guest_to_guest(self):
        for source, target in (("vif1", "vif2"), ("split1", "split2"), ("vif1", "split1"),
                               ("split1", "vif1")):
            with self.subTest(f"{source} to {target}"):
                sender, receiver = self.guests(source, target)
                sender.put("/tmp/part", os.urandom(1 << 20))
                sender.run("for n in 1 2 3 4 5 6 7 8; do cat /tmp/part; done >/tmp/out", timeout=DEADLINE)
                sums = sender.run("sha256sum /tmp/out").out.split()[0]
                taker = receiver.spawn("socat -u TCP-LISTEN:5001,reuseaddr - | sha256sum")
                sender.run(f"socat -u OPEN:/tmp/out TCP:{receiver.spec.address}:5001,retry=50,interval=0.2",
                           timeout=DEADLINE)
                self.assertEqual(taker.wait(DEADLINE).out.split()[0], sums)
                sender.run("rm -f /tmp/out /tmp/part")

    def test_f_dom0_has_no_part_in_a_vif(self):
        """Frames of a VIF's conversation with the wire are shown to no other VIF."""
        self.ping(self.xen.guests["vif1"], WIRE_ADDRESS)
        before = self.vif_counter(0, "rx_frames")
        self.ping(self.xen.guests["vif1"], WIRE_ADDRESS, 50)
        # 50 round trips; what else there is (ARP, a broadcast) is few.
        self.assertLess(self.vif_counter(0, "rx_frames") - before, 25)

    def vif_counter(self, slot, name):
        return self.xen.stats()["vifs"][str(slot)][name]

    def test_g_pf_driver_reloads_under_a_guests_transfer(self):
        moving = Fetch(self.xen.guests["vif1"])
        self.xen.run("rmmod svio && modprobe svio", timeout=120)
        moving.finish()
        self.xen.run("for try in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done\n"
                     "ip link set eth0 master xenbr0 up")
        self.assertEqual(self.vif(1)["running"], True)
        for name in ("split1", "vif1"):
            wait_for(lambda: not self.xen.guests[name].run(f"ping -c 1 -W 2 -q {WIRE_ADDRESS}",
                                                           check=False).rc, f"{name} reaches the wire")

    def test_h_a_guest_destroyed_under_traffic(self):
        slot = self.xen.guests["vif2"].spec.slot
        victim = self.xen.guests["vif2"]
        old = self.vif(slot)["id"]
        others = [Fetch(self.xen.guests[name]) for name in ("split2", "vif1")]
        victim.spawn(f"ping -f -q {WIRE_ADDRESS}")
        self.xen.destroy("vif2")
        for one in others:
            one.finish()
        wait_for(lambda: self.vif(slot) is None, "the VIF is gone")
        # The slot is another guest's now, with what its own file says and nothing of the former's.
        heir = self.xen.create(Guest("heir", "vif", slot=slot, vlan=100, rate=20))
        vif = self.vif(slot)
        self.assertGreater(vif["id"], old, "an ID is never used again")
        self.assertEqual((vif["mac"], vif["vlan"], vif["max_mbps"]), (heir.spec.mac, 100, 20))

    def test_i_vlan_and_rate_of_the_guests_file(self):
        heir, stranger = self.guests("heir", "vif1")
        out = heir.run(f"ping -c 2 -i 0.2 -W 2 -q {stranger.spec.address}", check=False).out
        self.assertIn(" 0 received", out, "a VLAN is apart from what is in none")
        friend = self.xen.create(Guest("friend", "vif", vlan=100))
        self.ping(heir, friend.spec.address)
        # 20 Mb/s at most: what a flood of it makes is bounded by the time that it took, however slow all is.
        begin, before = time.monotonic(), self.vif_counter(heir.spec.slot, "tx_bytes")
        heir.run(f"sockperf throughput -i {friend.spec.address} -p 9 -t 3 -m 1400", check=False, timeout=60)
        seconds = time.monotonic() - begin
        sent = self.vif_counter(heir.spec.slot, "tx_bytes") - before
        self.assertGreater(sent, 100000)
        self.assertLess(sent, 20e6 / 8 * seconds + 200000)

    def test_z_no_complaint(self):
        self.assertEqual(self.xen.guest_problems(), [])
        self.assertEqual(self.xen.kernel_problems(), [])
        log = self.xen.log()
        self.assertEqual([line for line in log.splitlines() if XEN_PROBLEMS.search(line)], [])
        said = self.xen.run("cat /run/svio/hotplug.log").out
        self.assertNotIn("stays empty", said)


class TestRefusals(unittest.TestCase):
    """A guest whose file makes no sense gets no VIF, and the reason is where its owner looks."""

    def test_entry_that_makes_no_sense(self):
        setup.ensure(["compile", "xen-image"])
        with XenMachine("xen-refusal", vifs=1, netdevs=[USER_NETDEV], guest_ports=1, memory=2048) as xen:
            spec = Guest("odd", "vif", index=1, slot=1)
            text = spec.xl_config().replace("svio=['", "svio=['speed=fast,")
            xen.put("/etc/xen/odd.cfg", text.encode())
            xen.run("xl create -q -p /etc/xen/odd.cfg", timeout=180)
            wait_for(lambda: "makes no sense" in xen.run("cat /run/svio/hotplug.log").out, "it is said")
            self.assertEqual([vif["slot"] for vif in xen.vif_list()], [0])
            domid = xen.run("xl domid odd").out.strip()
            self.assertIn("makes no sense",
                          xen.run(f"xenstore-read /local/domain/0/backend/pci/{domid}/0/svio-error").out)
