# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests with booted guests share: one VM for a class, its cards, and the usual questions.

A class says in cards() what its VM has. Nothing here depends on speed: conditions are awaited, and their
deadlines only end what hangs.
"""
import hashlib
import os
import re
import shutil
import tempfile
import time
import unittest
from contextlib import ExitStack

from svio_tool.ui import SvioError
from svio_tool.vm import Vm, VmDied
from wires import DEADLINE

# What no test may raise, of the board's counters and of the driver's.
DEVICE_ERRORS = ("queue_errors", "bad_register", "drop_tx_runt", "drop_tx_oversize", "drop_rx_runt",
                 "drop_rx_too_long", "drop_rx_queue_error", "drop_rx_no_buffer", "commands_refused")
DRIVER_ERRORS = ("resets", "tx_timeouts", "tx0_dropped", "rx0_dropped", "rx0_length_errors",
                 "rx0_alloc_failed", "dev_queue_errors", "dev_tx0_errors", "dev_rx0_errors")


def wait_for(condition, what, timeout=DEADLINE, pause=0.05):
    """What condition() returns once it is true. `what` may be a function, for what was seen last."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(pause)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Card:
    """One svio card of a VM. `dev` is its name in the guest, `name` that of its QOM object as well."""

    def __init__(self, name, index, wire, options=""):
        self.name, self.index, self.wire, self.options = name, index, wire, options
        self.dev = name
        self.mac = f"52:54:00:76:6d:{index:02x}"

    def device(self):
        # A fixed slot: the same place on all machines, after what QEMU puts there itself.
        words = f"svio-nic,id={self.name},{self.wire.words},mac={self.mac},addr={0x10 + self.index:#x}"
        return words + ("," + self.options if self.options else "")


class VmCase(unittest.TestCase):
    NAME = ""
    KERNEL, MACHINE, SMP, EXTRA = "6.12", "q35", 1, ()
    MEMORY, ARCHIVES = 640, ()
    maxDiff = 20000
    dead = False

    # ---- to be written by a class ----

    @classmethod
    def cards(cls):
        """The VM's cards; what they need is put on cls.stack, sockets into cls.folder."""
        raise NotImplementedError

    @classmethod
    def prepare(cls):
        """What all tests of the class need in the guest."""

    # ---- life ----

    @classmethod
    def setUpClass(cls):
        if cls is VmCase or not cls.NAME:
            raise unittest.SkipTest("no tests of its own")
        with ExitStack() as stack:
            cls.stack = stack
            cls.folder = tempfile.mkdtemp(prefix="svio-vm-")
            stack.callback(shutil.rmtree, cls.folder, ignore_errors=True)
            cls.card = {}
            for index, card in enumerate(cls.cards()):
                cls.card[card.name] = card
                stack.callback(card.wire.close)
            cls.vm = cls.boot(stack)
            cls.name_interfaces()
            cls.prepare()
            cls.stack = stack.pop_all()

    @classmethod
    def boot(cls, stack):
        """With several vCPUs under TCG QEMU itself may die while the guest maps BARs (QEMU's issue 1921,
        whatever the devices). That and nothing else is tried again."""
        for last in (False, False, True):
            try:
                return stack.enter_context(cls.make_vm())
            except VmDied as error:
                if last or cls.SMP == 1 or "iotlb_to_section: Assertion" not in str(error):
                    raise

    @classmethod
    def make_vm(cls):
        cards = cls.card.values()
        return Vm(f"test-{cls.NAME}", nics=[card.device() for card in cards],
                  netdevs=[card.wire.netdev for card in cards if card.wire.netdev], machine=cls.MACHINE,
                  smp=cls.SMP, memory=cls.MEMORY, kernel=cls.KERNEL, extra=cls.EXTRA,
                  archives=cls.ARCHIVES)

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def setUp(self):
        if self.dead:
            self.fail("the VM died in an earlier test")
        try:
            self.vm.check_alive()
        except VmDied:
            type(self).dead = True
            raise
        self.old_problems = len(self.vm.kernel_problems())
        self.addCleanup(self._no_new_problems)

    def _no_new_problems(self):
        self.assertEqual(self.vm.kernel_problems()[self.old_problems:], [])

    def check_health(self):
        """What each class ends with (test_zz_healthy: tests run in the order of their names)."""
        self.assertEqual(self.leaks(), "")
        self.assertEqual(self.vm.kernel_problems(), [])
        for card in self.card.values():
            vif = self.vif(card.name)
            self.assertEqual({key: vif[key] for key in DEVICE_ERRORS if vif[key]}, {}, card.name)
            for queue in vif["queues"]["0"].values():
                self.assertEqual(queue["errors"], 0, card.name)
            driver = self.ethtool(card)
            self.assertEqual({key: driver[key] for key in DRIVER_ERRORS if driver[key]}, {}, card.name)

    def leaks(self):
        """What kmemleak has found, in a guest that has it. An object must be unreferenced in two scans, and
        5 s old."""
        return self.run_in("""
            mount -t debugfs none /sys/kernel/debug 2>/dev/null
            leaks=/sys/kernel/debug/kmemleak
            [ -e $leaks ] || exit 0
            sleep 6; echo scan >$leaks; sleep 6; echo scan >$leaks; cat $leaks""")

    # ---- the guest ----

    @classmethod
    def run_in(cls, command, timeout=DEADLINE, check=True):
        """Standard output of a shell command in the guest."""
        return cls.vm.run(command, timeout=timeout, check=check).out

    @classmethod
    def name_interfaces(cls, *cards):
        """Give the cards' interfaces their names; nothing but what a test sends travels on the wires."""
        lines = []
        for card in cards or cls.card.values():
            lines.append(f"name_it {card.mac} {card.dev}")
        cls.run_in("""
            name_it() {
                for path in /sys/class/net/*; do
                    read -r mac <$path/address
                    [ "$mac" = "$1" ] && old=${path##*/} && break
                    old=
                done
                [ -n "$old" ] || { echo "no interface has $1" >&2; exit 1; }
                [ "$old" = "$2" ] && return
                echo 1 >/proc/sys/net/ipv6/conf/$old/disable_ipv6
                ip link set dev $old down && ip link set dev $old name $2 || exit 1
            }
            """ + "\n".join(lines))

    def start_process(self, command):
        """A program in the guest that runs on: .wait(), .poll(), .kill(). It ends with the test."""
        process = self.vm.spawn(command)

        def end():
            try:
                if not self.dead and process.poll() is None:
                    process.kill()
            except SvioError:
                pass        # the guest went, or was reset, and the process with it
        self.addCleanup(end)
        return process

    def sysfs(self, card, name):
        return int(self.run_in(f"cat /sys/class/net/{card.dev}/{name}"))

    def ethtool(self, card, prefix=""):
        """The numbers of ethtool -S."""
        out = self.run_in(f"{prefix} ethtool -S {card.dev}")
        return {key.strip(): int(value) for key, _, value in
                (line.partition(":") for line in out.splitlines()[1:])}

    def link_stats(self, card):
        """rtnl_link_stats64 as in ip -s link: {"rx_packets": 0, ...}."""
        out = self.run_in(f"cd /sys/class/net/{card.dev}/statistics && grep . *")
        return {key: int(value) for key, _, value in (line.partition(":") for line in out.splitlines())}

    def guest_sum(self, name):
        return self.run_in(f"sha256sum {name}").split()[0]

    @classmethod
    def echo_answers(cls, prefix=""):
        """Answers to pings as the guest's kernel counts them, IPv4 and IPv6 together."""
        out = cls.run_in(f"{prefix} cat /proc/net/snmp /proc/net/snmp6")
        heads, values = re.findall(r"^Icmp: (.*)$", out, re.M)
        found = dict(zip(heads.split(), map(int, values.split())))
        found.update((key, int(value)) for key, value in re.findall(r"^(Icmp6\w+)\s+(\d+)$", out, re.M))
        return found["InEchoReps"] + found.get("Icmp6InEchoReplies", 0)

    def ping_exactly(self, count, words, prefix=""):
        """Exactly as many answers as requests, whole ones. ping itself waits for the last ones for two round
        trips only, which is a matter of speed: what counts is what the kernel has counted in the end."""
        before = self.echo_answers(prefix)
        out = self.run_in(f"{prefix} ping -q -W 60 -c {count} {words}")
        self.assertRegex(out, rf"\b{count} packets transmitted, ")
        self.assertNotRegex(out, "wrong data|truncated|duplicates|errors|corrupted")

        def moved():
            return self.echo_answers(prefix) - before
        self.wait(lambda: moved() >= count, lambda: f"{count} answers, now {moved()}\n{out}")
        self.assertEqual(moved(), count)

    def make_file(self, name, mib):
        """Random bytes in a file of the guest; their SHA-256."""
        self.run_in(f"head -c {int(mib * 1048576)} /dev/urandom >{name}")
        return self.guest_sum(name)

    # ---- the board ----

    @classmethod
    def vif(cls, name):
        return cls.vm.stats(name)["vifs"]["0"]

    def core_sum(self, name, counter):
        return sum(core[counter] for core in self.vm.stats(name)["cores"].values())

    def wait(self, condition, what, timeout=DEADLINE):
        def alive():
            self.vm.check_alive()
            return condition()
        return wait_for(alive, what, timeout)

    def wait_ping(self, words, timeout=DEADLINE, prefix=""):
        """Until one answer has come; for after an interruption, when the first frames may be lost."""
        self.wait(lambda: self.vm.run(f"{prefix} ping -c 1 -W 2 -q {words}", check=False).rc == 0,
                  f"an answer to ping {words}", timeout)


def host_is_root():
    return os.geteuid() == 0
