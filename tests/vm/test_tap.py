# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own Linux at the other end: tap interfaces in a network namespace that the test makes.

Native port (port=tap:) and QEMU's netdev (-netdev tap) alike. Needs root and /dev/net/tun.
"""
import ctypes
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import unittest
from contextlib import contextmanager

from case import Card, VmCase, sha256
from wires import DEADLINE, Wire

CLONE_NEWNET = 0x40000000
MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace of the host; what is opened inside of "with entered()" belongs to it."""

    def __init__(self):
        self.name = f"svio-test-{os.getpid()}"
        for reason, bad in (("only root makes a network namespace", os.geteuid() != 0),
                            ("this host has no /dev/net/tun", not os.path.exists("/dev/net/tun")),
                            ("this host has no iproute2", not shutil.which("ip"))):
            if bad:
                raise unittest.SkipTest(reason)
        made = subprocess.run(["ip", "netns", "add", self.name], capture_output=True, text=True, check=False)
        if made.returncode:
            raise unittest.SkipTest(f"this host lets nobody make a network namespace: {made.stderr.strip()}")

    def ip(self, *words):
        return subprocess.run(["ip", "-n", self.name, *words], check=True, capture_output=True,
                              text=True).stdout

    @contextmanager
    def entered(self):
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}") as there:
            self._enter(there)
            try:
                yield
            finally:
                self._enter(before)

    @staticmethod
    def _enter(handle):
        if LIBC.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)


class Party:
    """The host's side of two TCP connections: takes everything from the first, sends `data` on the second."""

    def __init__(self, namespace, address, data):
        self.total, self.length, self.data = hashlib.sha256(), 0, data
        with namespace.entered():
            self.listeners = [socket.create_server((address, 0)) for _ in range(2)]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._take, self._give)]
        for thread in self.threads:
            thread.start()

    def _take(self):
        connection, _ = self.listeners[0].accept()
        with connection:
            while part := connection.recv(1 << 18):
                self.total.update(part)
                self.length += len(part)

    def _give(self):
        connection, _ = self.listeners[1].accept()
        with connection:
            connection.sendall(self.data)

    def end(self):
        for thread in self.threads:
            thread.join(DEADLINE)
        for listener in self.listeners:
            listener.close()


class TestTap(VmCase):
    NAME, SMP = "tap", 1
    # name of card and host interface: third byte of their network
    NETS = {"tap": 90, "tapnet": 91}

    @classmethod
    def cards(cls):
        cls.host = Namespace()
        cls.stack.callback(cls.host.close)
        with cls.host.entered():
            with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as switch:
                switch.write("1")
        for name, net in cls.NETS.items():
            cls.host.ip("tuntap", "add", "dev", name, "mode", "tap")
            cls.host.ip("address", "add", f"10.{net}.0.1/24", "dev", name)
            cls.host.ip("link", "set", name, "up")
        return [Card("tap", 1, Wire(None, "port=tap:tap")),
                Card("tapnet", 2, Wire("tap,id=net-tap,ifname=tapnet,script=no,downscript=no",
                                       "netdev=net-tap"))]

    @classmethod
    def boot(cls, stack):
        # QEMU is a child of this thread and opens the interfaces where this thread is now.
        with cls.host.entered():
            return super().boot(stack)

    @classmethod
    def prepare(cls):
        cls.set_mtu(1500)

    @classmethod
    def set_mtu(cls, mtu):
        for name, net in cls.NETS.items():
            cls.host.ip("link", "set", name, "mtu", str(mtu))
            cls.run_in(f"ip address replace 10.{net}.0.2/24 dev {name} && ip link set {name} up mtu {mtu}")

    def host_counters(self, name):
        """What the host's interface has counted, from its own point of view."""
        return json.loads(self.host.ip("-j", "-s", "link", "show", "dev", name))[0]["stats64"]

    def both_ways(self, name, mib):
        """Random bytes each way at once over TCP; both sums agree."""
        host = f"10.{self.NETS[name]}.0.1"
        wanted, data = self.make_file("/tmp/up", mib), os.urandom(mib * MIB)
        party = Party(self.host, host, data)
        processes = [self.start_process(f"exec socat -u FILE:/tmp/up TCP4:{host}:{party.ports[0]}"),
                     self.start_process(f"exec socat -u TCP4:{host}:{party.ports[1]} CREATE:/tmp/down")]
        for process in processes:
            result = process.wait(300)
            self.assertEqual((result.rc, result.err), (0, ""))
        party.end()
        self.assertEqual((party.length, party.total.hexdigest()), (mib * MIB, wanted))
        self.assertEqual(self.guest_sum("/tmp/down"), sha256(data))
        self.run_in("rm -f /tmp/up /tmp/down")

    def test_tap_ping_and_counters(self):
        for name, net in self.NETS.items():
            card = self.card[name]
            self.ping_exactly(1, f"10.{net}.0.1")
            before, guest = self.host_counters(name), self.link_stats(card)
            for size in (18, 56, 1472):
                self.ping_exactly(300, f"-f -s {size} 10.{net}.0.1")

            def counted():
                now, host = self.link_stats(card), self.host_counters(name)
                return [(now[f"{one}_{unit}"] - guest[f"{one}_{unit}"],
                         host[other][unit] - before[other][unit])
                        for one, other in (("tx", "rx"), ("rx", "tx")) for unit in ("packets", "bytes")]
            self.wait(lambda: all(one == other for one, other in counted()), counted)
            self.assertGreaterEqual(counted()[0][0], 900)
            # Tap is no Ethernet: the host's frames have 42 bytes, and only QEMU's netdev pads them.
            self.ping_exactly(20, f"-i 0.01 -s 0 10.{net}.0.1")

    def test_tap_transfer(self):
        for name in self.NETS:
            self.both_ways(name, 8)

    def test_tap_offloads(self):
        """Segments go unsplit both ways, and with each offload off TCP carries the same bytes."""
        for name in self.NETS:
            for words in ("tso off gso off tx off", "rx off", "rx on", "rx-gro-hw off",
                          "rx-gro-hw on tx on gso on tso on"):
                self.run_in(f"ethtool -K {name} {words}")
                self.both_ways(name, 3)
            before = self.host_counters(name), self.vif(name)
            self.both_ways(name, 8)
            after = self.host_counters(name), self.vif(name)
            # From the host's side a message is a packet: 1448 bytes each would be 5793.
            self.assertLess(after[0]["rx"]["packets"] - before[0]["rx"]["packets"], 5000)
            self.assertLess(after[1]["tx_frames"] - before[1]["tx_frames"], 5000)
            self.assertEqual(after[1]["drop_tx_port_error"], before[1]["drop_tx_port_error"])
            self.assertEqual((after[1]["drop_tx_offload"], after[1]["drop_rx_offload"]), (0, 0))

    def test_tap_large_mtu(self):
        self.set_mtu(9000)
        for name, net in self.NETS.items():
            self.ping_exactly(50, f"-A -M do -s 8972 10.{net}.0.1")
            self.both_ways(name, 8)
        self.set_mtu(1500)

    def test_tap_goes_down_and_up(self):
        """The host's interface goes down: frames are refused and counted, and later all works again."""
        for name, net in self.NETS.items():
            for _ in range(3):
                self.host.ip("link", "set", name, "down")
                self.vm.run(f"ping -q -c 5 -i 0.02 -W 1 10.{net}.0.1", check=False)
                self.host.ip("link", "set", name, "up")
                self.wait_ping(f"10.{net}.0.1")
            self.both_ways(name, 2)

    def test_zz_healthy(self):
        self.check_health()
