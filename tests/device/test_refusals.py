# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot work is refused at once, with a sentence that says why."""
import re
import tempfile
import unittest
from pathlib import Path

from case import DeviceCase
from machine import OTHER_VERSION, PLUGIN, run_to_end
from svio_tool import paths, ui
from svio_tool.qmp import QmpError


class CommandLine(unittest.TestCase):
    def refused(self, sentence, *arguments, **options):
        status, said = run_to_end(*arguments, **options)
        self.assertGreater(status, 0, f"refused, and not crashed (status {status}): {said}")
        self.assertRegex(said, sentence)
        self.assertNotRegex(said, r"(?i)assert|undefined symbol|terminate called")

    def device(self, options, sentence, *before):
        self.refused(sentence, *before, "-device", "svio-nic" + options)

    def test_properties(self):
        for options, sentence in (
                (",cores=0", r"cores=0 is not between 1 and 16"),
                (",cores=17", r"cores=17 is not between 1 and 16"),
                (",cores=4294967295", r"cores=4294967295 is not between 1 and 16"),
                (",cores=x", r"cores"),
                (",queue-size=100", r"queue-size=100 is not a power of two between 16 and 4096"),
                (",queues=0", r"queues=0 is not between 1 and 8"),
                (",queues=9", r"queues=9 is not between 1 and 8"),
                (",queue-size=8", r"queue-size=8 is not a power of two"),
                (",queue-size=8192", r"queue-size=8192 is not a power of two"),
                (",queue-size=0", r"queue-size=0 is not a power of two"),
                (",poll-us=1000001", r"poll-us=1000001 is more than 1000000"),
                (",mac=hello", r"mac"),
                (",signals=loud", r"signals=loud is neither msix nor shared"),
                (",auto-vif=perhaps", r"auto-vif"), (",port-mbps=much", r"port-mbps"),
                (",netdev=nowhere", r"nowhere"),
                (",color=red", r"color")):
            with self.subTest(options):
                self.device(options, sentence)

    def test_netdev_and_port(self):
        self.device(",netdev=n0,port=dgram:/tmp/a,,/tmp/b", r"netdev= and port= exclude each other",
                    "-netdev", "user,id=n0")

    def test_ports(self):
        with tempfile.TemporaryDirectory(prefix="svio-device-") as folder:
            plain = Path(folder) / "plain"
            plain.write_text("not a socket")
            for port, sentence in (
                    ("", r"port= is not one of dgram:LOCAL,REMOTE"),
                    ("serial:0", r"port=serial:0 is not one of dgram:LOCAL,REMOTE \(two .*\) and tap"),
                    ("dgram:", r"is not one of"), ("dgram:/tmp/a", r"is not one of"),
                    ("dgram:/tmp/a,,", r"is not one of"), ("dgram:,,/tmp/b", r"is not one of"),
                    ("tap:", r"is not one of"),
                    (f"dgram:{folder}/no/such/folder,,/tmp/b", r"cannot bind the socket .*No such file"),
                    (f"dgram:{plain},,/tmp/b", r"cannot bind the socket .*in use"),
                    (f"dgram:/tmp/{'a' * 110},,/tmp/b", r"longer than the 107 bytes"),
                    ("tap:averyveryverylongname", r"is too long")):
                with self.subTest(port):
                    self.device(f",port={port}", sentence)
            self.assertEqual(plain.read_text(), "not a socket", "a file in the way is not removed")

    def test_plugin_argument(self):
        self.refused(r"takes no arguments \(\"cores=2\"\); the device does", plugin=f"{PLUGIN},cores=2")

    def test_plugin_for_another_qemu(self):
        self.assertTrue(OTHER_VERSION.exists(), OTHER_VERSION)
        found = re.search(r"version (\d+\.\d+\.\d+)", ui.output([paths.QEMU, "--version"]))[1]
        self.refused(rf"built for QEMU 9\.9\.9 and cannot be used with QEMU {re.escape(found)} .*"
                     r"run \"scripts/svio setup\"", plugin=OTHER_VERSION)

    def test_plugin_without_its_other_half(self):
        with tempfile.TemporaryDirectory(prefix="svio-device-") as folder:
            alone = Path(folder) / "svio.so"
            alone.write_bytes(PLUGIN.read_bytes())
            self.refused(r"cannot open svio-adapter\.so beside the plugin", plugin=alone)


class Monitor(DeviceCase):
    def test_refused_while_running(self):
        """device_add with nonsense leaves the machine, its netdevs and its threads as they were."""
        port = "pcie-root-port,id=rp1,bus=pcie.0,addr=0x6,chassis=2,slot=2"
        self.boot(pcie_port=True, extra=["-netdev", "user,id=n1", "-device", port]).bring_up()
        card = {"driver": "svio-nic", "id": "svio1", "bus": "rp1"}
        # A thread has its name only once it runs.
        threads = self.wait(self.machine.threads, "the core of the first card")
        for options, sentence in (({"cores": 0}, "cores=0"), ({"queue-size": 3}, "queue-size=3"),
                                  ({"port": "x"}, "port=x"),
                                  ({"netdev": "n1", "port": "dgram:a,b"}, "exclude"),
                                  ({"netdev": "n0"}, "n0")):
            with self.assertRaisesRegex(QmpError, sentence):
                self.machine.qmp.command("device_add", {**card, **options})
            self.assertEqual(self.machine.threads(), threads)
        self.machine.qmp.command("device_add", {**card, "netdev": "n1"})
        self.wait(lambda: len(self.machine.threads()) == len(threads) + 1, "the core of the second card")
        self.check_both()


if __name__ == "__main__":
    unittest.main()
