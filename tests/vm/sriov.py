# SPDX-License-Identifier: GPL-2.0-or-later
"""One card as an SR-IOV NIC, and one at the far end of its wire, in one guest.

Each VF is in a network namespace of its own; at the far end of the wire is another card of the same VM, in
one as well. The PF stays in the first. All have addresses in one network.
"""
import json
import socket

from capture import Capture
from case import VmCase
from disturb import TYPE
from plug import PortCard
from svio_tool.vm import Vm
from wires import DEADLINE, cross, mac_bytes

VIFS = 8
KIB = 1 << 10
FOREIGN = "02:de:ad:be:ef:01"


class Management:
    """The device's own socket: JSON lines."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.lines = self.sock.makefile("r")

    def ask(self, op, **words):
        self.sock.sendall((json.dumps({"op": op, **words}) + "\n").encode())
        return json.loads(self.lines.readline())

    def close(self):
        self.lines.close()
        self.sock.close()


class SriovCase(VmCase):
    """What the classes share: the VM, its VFs, and questions."""

    MANAGED = False             # whether the device has management's own socket

    # The PF and the far end of the wire; v0, v1, ... are the VFs.
    HOSTS = {"P": "10.9.0.1", "W": "10.9.0.2"}

    @classmethod
    def cards(cls):
        one, other = cross(cls.folder, "port", native=True)
        socket_of_it = f",mgmt={cls.folder}/mgmt" if cls.MANAGED else ""
        return [PortCard("pf", 1, one, f"vifs={VIFS}{socket_of_it}"), PortCard("far", 2, other)]

    @classmethod
    def make_vm(cls):
        cards = cls.card.values()
        return Vm(f"test-{cls.NAME}", nics=[*(card.port for card in cards),
                                            *(card.device() for card in cards)],
                  machine=cls.MACHINE, smp=cls.SMP, memory=640, kernel=cls.KERNEL, extra=cls.EXTRA,
                  plugin=True)

    @classmethod
    def prepare(cls):
        cls.place = cls.run_in("basename $(readlink /sys/class/net/pf/device)").strip()
        cls.pci = f"/sys/bus/pci/devices/{cls.place}"
        if cls.MANAGED:
            cls.management = Management(f"{cls.folder}/mgmt")
            cls.stack.callback(cls.management.close)
        for ns in ("W", *(f"v{n}" for n in range(VIFS))):
            cls.run_in(f"ip netns add {ns} && ip -n {ns} link set lo up && ip netns exec {ns} sysctl -q "
                       "net.ipv6.conf.default.disable_ipv6=1 net.ipv4.tcp_no_metrics_save=1")
        cls.run_in("ip link set far netns W")
        cls.settle("W", "far")
        cls.run_in("ip link set pf up && ip address replace 10.9.0.1/24 dev pf")

    @classmethod
    def settle(cls, ns, dev):
        host = cls.HOSTS.get(ns) or f"10.9.0.{10 + int(ns[1:])}"
        cls.run_in(f"ip -n {ns} address replace {host}/24 dev {dev} && ip -n {ns} link set {dev} up")

    def setUp(self):
        super().setUp()
        self.enable(2)

    # ---- VFs ----

    @staticmethod
    def prefix(ns):
        return "" if ns == "P" else f"ip netns exec {ns}"

    @staticmethod
    def dev(ns):
        return {"P": "pf", "W": "far"}.get(ns) or f"vf{ns[1:]}"

    def address(self, ns):
        return self.HOSTS.get(ns) or f"10.9.0.{10 + int(ns[1:])}"

    def number(self):
        return int(self.run_in(f"cat {self.pci}/sriov_numvfs"))

    def set_number(self, count):
        self.run_in(f"echo {count} >{self.pci}/sriov_numvfs")

    def enable(self, count):
        """So many VFs with their interfaces in their namespaces."""
        if self.number() != count:
            if self.number():
                self.set_number(0)
            self.set_number(count)
        for n in range(count):
            self.take(n)

    def take(self, n):
        """A VF's interface under its name in its namespace."""
        here = f"ls {self.pci}/virtfn{n}/net 2>/dev/null"

        def there():
            if self.vm.run(f"ip -n v{n} link show vf{n}", check=False).rc == 0:
                return "there"
            return self.run_in(here, check=False).strip()
        name = self.wait(there, f"VF {n} has an interface")
        if name != "there":
            self.run_in(f"ip link set {name} down; ip link set {name} name vf{n} && "
                        f"ip link set vf{n} netns v{n}")
        self.settle(f"v{n}", f"vf{n}")
        self.wait_carrier(f"v{n}")

    def wait_carrier(self, ns, up=True):
        self.wait(lambda: ("LOWER_UP" in self.run_in(f"{self.prefix(ns)} ip link show {self.dev(ns)}"))
                  == up, f"carrier of {ns} is {'up' if up else 'down'}")

    def vf_place(self, n):
        return self.run_in(f"basename $(readlink {self.pci}/virtfn{n})").strip()

    def link_of(self, n):
        """What ip link shows of a VF."""
        found = json.loads(self.run_in("ip -j -s link show pf"))[0].get("vfinfo_list", [])
        return next((vf for vf in found if vf["vf"] == n), None)

    def mac_of(self, ns):
        return self.run_in(f"{self.prefix(ns)} cat /sys/class/net/{self.dev(ns)}/address").strip()

    def counters(self, n):
        """The device's counters of a VF's VIF, as its own driver reads them."""
        out = self.run_in(f"ip netns exec v{n} ethtool -S vf{n}")
        return {key.strip()[4:]: int(value) for key, _, value in
                (line.partition(":") for line in out.splitlines()[1:]) if key.strip().startswith("dev_")}

    def set_vf(self, n, words, check=True):
        return self.vm.run(f"ip link set pf vf {n} {words}", check=check)

    # ---- traffic ----

    def answers(self, ns, to):
        return self.vm.run(f"{self.prefix(ns)} ping -q -c 1 -W 2 {self.address(to)}", check=False).rc == 0

    def wait_answer(self, ns, to):
        self.wait(lambda: self.answers(ns, to), f"{to} answers {ns}")

    def no_answer(self, ns, to):
        """Not even to three requests; the neighbour is known, so nothing depends on ARP."""
        self.run_in(f"{self.prefix(ns)} ip neighbour replace {self.address(to)} lladdr {self.mac_of(to)} "
                    f"nud permanent dev {self.dev(ns)}")
        result = self.vm.run(f"{self.prefix(ns)} ping -q -c 3 -i 0.1 -W 1 {self.address(to)}", check=False)
        self.run_in(f"{self.prefix(ns)} ip neighbour del {self.address(to)} dev {self.dev(ns)}")
        self.assertNotEqual(result.rc, 0, f"{to} answers {ns}")

    def transfers(self, hosts, kib=256):
        """A file from each to each other; the guest compares."""
        pairs = [(one, other) for one in hosts for other in hosts if one != other]
        lines = ["cd /tmp"]
        for ns in hosts:
            lines.append(f"head -c {kib * KIB} /dev/urandom >{ns}.file")
        for one, other in pairs:
            lines.append(f"""
                rm -f out
                {self.prefix(other)} socat -u TCP4-LISTEN:5001,reuseaddr CREATE:out & receiver=$!
                {self.prefix(one)} socat -u FILE:{one}.file TCP4:{self.address(other)}:5001,""" +
                         f"""retry=200,interval=0.05 || echo "{one} to {other}: not sent"
                wait $receiver; cmp {one}.file out && echo "{one} to {other}: same" """)
        out = self.run_in("\n".join(lines) + "\nrm -f *.file out", timeout=3 * DEADLINE)
        self.assertEqual(sorted(out.splitlines()), sorted(f"{one} to {other}: same" for one, other in pairs))

    def send_raw(self, n, frame, count=1):
        """Frames as a VF's guest could make them, past its own stack."""
        text = "".join(f"\\x{byte:02x}" for byte in frame)
        # Each write is one frame.
        self.run_in(f"for i in $(seq {count}); do printf '{text}' | "
                    f"ip netns exec v{n} socat -u -b 2000 STDIN INTERFACE:vf{n}; done")

    def raw(self, to, source, tag=b"", kind=0x88b5, filler=0x5a):
        head = mac_bytes(to) + mac_bytes(source) + tag + kind.to_bytes(2, "big")
        return head.ljust(64, bytes([filler]))

    def assert_dropped(self, name, *frames, count):
        """So many of each that VF 0 sends are counted as this, and VF 1 hears but what comes after them: a
        good frame. Told by their bytes, as VF 1 may hear something else at any time, such as an ARP probe."""
        before = self.counters(0)[name]
        good = self.raw(self.mac_of("v1"), self.mac_of("v0"), filler=0x33)
        with Capture(self.vm, self.dev("v1"), TYPE, prefix=self.prefix("v1")) as capture:
            for frame in frames:
                self.send_raw(0, frame, count)
            self.wait_counter(0, name, before + len(frames) * count)
            self.send_raw(0, good)
            self.assertEqual([data.hex() for data in capture.wait_frames(1)], [good.hex()])
        self.assertEqual(self.counters(0)[name], before + len(frames) * count)

    def spoof(self):
        """VF 0 sends with a foreign source MAC: dropped, counted."""
        self.assert_dropped("drop_tx_spoof", self.raw(self.mac_of("v1"), FOREIGN), count=5)

    def wait_counter(self, n, name, wanted):
        self.wait(lambda: self.counters(n)[name] >= wanted,
                  lambda: f"{name} of VF {n} is {wanted}, now {self.counters(n)[name]}")
        self.assertEqual(self.counters(n)[name], wanted)

    def steady(self, one, other):
        """Pings without end, for what must not disturb it or be disturbed by it. Ends with the test."""
        return self.start_process(f"{self.prefix(one)} ping -q -i 0.02 {self.address(other)}")
