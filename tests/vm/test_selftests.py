# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own tests of network drivers (tools/testing/selftests/drivers/net of the kernel's source package),
run against svio: three wires with a card at either end.

The Python ones have the far end of the first wire in a network namespace; the shell scripts want all cards in
one. What must pass is named; what fails, and why; anything else may pass or say that it does not apply.
"""
import re
import unittest
from pathlib import Path

from case import Card, VmCase
from svio_tool import selftests, setup
from svio_tool.paths import LOG
from svio_tool.worker import long
from wires import cross

RUNNER = Path(__file__).parent / "selftests/runner.py"
PAIRS = 8
MOST = 1800     # seconds for one script

# What each must say at least, by the name of the case.
MUST_PASS = {
    "ping.py": "test_v4 test_v6 test_tcp",
    "queues.py": "get_queues addremove_queues",
    "stats.py": "pkt_byte_sum qstat_by_ifindex check_down",
    "hw/csum.py": " ".join(f"ipv{n}_{what}" for n in (4, 6) for what in (
        "rx_tcp", "rx_tcp_invalid", "rx_udp", "rx_udp_invalid", "tx_udp_csum_offload",
        "tx_udp_zero_checksum")),
    "hw/rss_ctx.py": "test_rss_key_indir test_rss_queue_reconfigure test_rss_resize "
                     "test_hitless_key_update",
}
# Scripts that fail, and why that is right.
FAILS = {
    "hw/ethtool.sh": "speed, duplex and advertised modes cannot be set: nothing is negotiated",
    "hw/ethtool_extended_state.sh": "the driver does not say why a link is down, and negotiates nothing",
    "hw/hw_stats_l3.sh": "the card does not route, and has no statistics of layer 3",
    "hw/hw_stats_l3_gre.sh": "the card does not route, and has no statistics of layer 3",
}
# Not about the driver of the card: they make their own devices, or are for one piece of hardware.
OTHERS = {
    "netcons_basic.sh": "netdevsim and netconsole", "bonding": "bonds of veth, dummy and netdevsim",
    "team": "teams of dummy devices", "netdevsim": "netdevsim", "virtio_net": "virtio_net's own features",
    "dsa": "DSA switches", "microchip": "Microchip's switches", "mlxsw": "NVIDIA's switches",
    "ocelot": "Microsemi's switches",
}
KTAP = re.compile(r"^(not )?ok \d+ \w+\.(\w+)(?: # (SKIP|XFAIL)\s*(.*))?$", re.M)
SHELL = re.compile(r"^TEST: (.*?)\s*\[\s*(\w+)\s*\]\n(?:\t(.*))?", re.M)
WORDS = {"OK": "pass", "FAIL": "fail", "SKIP": "skip", "XFAIL": "xfail"}


def results(status, text):
    """{case: (pass, fail, skip or xfail; the reason)} from what a script printed."""
    found = {}
    for bad, name, word, reason in KTAP.findall(text):
        found[name] = ("fail" if bad else WORDS[word] if word else "pass", reason)
    for name, word, reason in SHELL.findall(text):
        skipped = name.startswith("SKIP: ")
        found[name.removeprefix("SKIP: ")] = ("skip" if skipped else WORDS[word], reason)
    if not found and status == 4:       # kselftest's word for what does not apply
        found[""] = ("skip", text.strip().splitlines()[-1].removeprefix("SKIP: ") if text.strip() else "")
    return found


@long
class TestSelftests(VmCase):
    NAME, SMP, MEMORY, ARCHIVES = "selftests", 2, 1536, [selftests.ARCHIVE]
    svio_minutes = 5
    svio_patience = MOST + 300

    @classmethod
    def cards(cls):
        setup.ensure(["selftests"])
        cards = []
        for number in range(3):
            one, other = cross(cls.folder, f"wire{number}", True)
            # The tests want several queues, and of the far end nothing.
            cards += [Card(f"near{number}", 2 * number, one, f"queues={PAIRS}"),
                      Card(f"far{number}", 2 * number + 1, other)]
        return cards

    @classmethod
    def prepare(cls):
        cls.listing = []
        cls.vm.put("/tmp/runner.py", RUNNER.read_bytes())
        found = cls.run_in(f"cd {selftests.DRIVERS_NET}; ls *.py *.sh hw/*.py hw/*.sh; ls -d */").split()
        cls.scripts = [name for name in found if not name.endswith(("/", "_lib.sh"))]
        cls.folders = [name[:-1] for name in found if name.endswith("/")]

    @classmethod
    def tearDownClass(cls):
        if getattr(cls, "listing", None):
            (LOG / "selftests.txt").write_text("\n".join(cls.listing) + "\n")
        super().tearDownClass()

    def check_script(self, name, words):
        folder, _, script = name.rpartition("/")
        answer = self.vm.run(f"cd {selftests.DRIVERS_NET}/{folder} && {words} 2>&1", timeout=MOST,
                             check=False)
        found = results(answer.rc, answer.out)
        self.assertTrue(found, f"{name} ended with {answer.rc} and said:\n{answer.out[-3000:]}")
        for case, (word, reason) in found.items():
            line = f"{word:5} {name} {case}".rstrip()
            why = FAILS.get(name, reason) if word == "fail" else reason
            self.listing.append(line + (f": {why}" if word != "pass" else ""))
        passed = {case for case, (word, _) in found.items() if word == "pass"}
        failed = {case for case, (word, _) in found.items() if word == "fail"}
        self.assertLessEqual(set(MUST_PASS.get(name, "").split()), passed, answer.out[-3000:])
        if name in FAILS:
            self.assertTrue(failed, f"{name} passes now: take it out of the list of those that fail")
        else:
            self.assertEqual(failed, set(), answer.out[-3000:])

    def check_scripts(self, ending, words):
        names = [name for name in self.scripts if name.endswith(ending) and name not in OTHERS]
        self.assertGreater(len(names), 4)
        for name in names:
            with self.subTest(name):
                self.check_script(name, words(name.rpartition("/")[2]))

    def test_a_all_are_known(self):
        """Each folder is one that is run, or named as about something else."""
        self.assertEqual(set(self.folders) - {"hw", "lib"} - set(OTHERS), set())
        self.listing += [f"other {name}: {reason}" for name, reason in OTHERS.items()]

    def test_b_with_a_remote_end(self):
        try:
            self.run_in("""set -e
                sysctl -q net.ipv6.conf.near0.disable_ipv6=0 net.ipv6.conf.far0.disable_ipv6=0
                ip netns add remote; ip link set far0 netns remote; ip -n remote link set lo up
                ip link set near0 up; ip -n remote link set far0 up
                ip addr add 192.0.2.1/24 dev near0; ip -n remote addr add 192.0.2.2/24 dev far0
                ip -6 addr add 2001:db8::1/64 dev near0 nodad
                ip -n remote -6 addr add 2001:db8::2/64 dev far0 nodad
                ethtool -L near0 combined 6""")
            self.check_scripts(".py", lambda script: (
                "NETIF=near0 LOCAL_V4=192.0.2.1 REMOTE_V4=192.0.2.2 LOCAL_V6=2001:db8::1 "
                "REMOTE_V6=2001:db8::2 REMOTE_TYPE=netns REMOTE_ARGS=remote PYTHONUNBUFFERED=1 "
                f"python3 /tmp/runner.py {script} far0"))
        finally:
            self.run_in("ip netns del remote; ip addr flush dev near0")
            self.wait(lambda: "far0" in self.run_in("ls /sys/class/net"), "the far end is back")

    def test_c_in_one_namespace(self):
        """In the order of the wires, as the scripts count their ports."""
        ports = " ".join(self.card)
        self.check_scripts(".sh", lambda script: f"NETIF_NO_CABLE=none bash ./{script} {ports}")

    def test_zz_healthy(self):
        self.assertEqual(self.vm.kernel_problems(), [])
        self.listing.sort(key=lambda line: line.split()[1:])
        for words in self.listing:
            print(words)


if __name__ == "__main__":
    unittest.main()
