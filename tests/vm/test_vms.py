# SPDX-License-Identifier: GPL-2.0-or-later
"""Four VMs on one board: who reaches whom, what a flood or a death costs the others; and the verb "vms"."""
import contextlib
import io
import json
import os
import signal
import types
import unittest
from unittest import mock

from case import wait_for
from svio_tool import vms
from svio_tool.fleet import Fleet, address
from svio_tool.ui import SvioError

SIZE = 4 << 20
FLOOD = "while :; do head -c 200000 /dev/urandom | socat -u -b 1400 STDIN UDP4:{to}:9; done 2>/dev/null"


class TestFleet(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fleet = Fleet.start(4, name="test-fleet", detached=False)
        cls.addClassCleanup(lambda: cls.fleet.stop())

    def tearDown(self):
        for vm in self.fleet.vms:
            self.assertEqual(vm.kernel_problems(), [], f"VM {vm.number}")

    def vm(self, number):
        return self.fleet.vm(number)

    def slot(self, number):
        return next(row["slot"] for row in self.fleet.rows() if row["vm"] == number)

    def begin(self, source, target, port=7000):
        """A random file by TCP, on its way."""
        self.vm(target).run(f"rm -f /tmp/in{port}; (socat -u TCP4-LISTEN:{port},reuseaddr "
                            f"CREATE:/tmp/in{port}; touch /tmp/whole{port}) >/dev/null 2>&1 </dev/null &")
        self.vm(source).run(f"dd if=/dev/urandom of=/tmp/out{port} bs=1M count={SIZE >> 20} 2>/dev/null")
        process = self.vm(source).spawn(f"socat -u FILE:/tmp/out{port} "
                                        f"TCP4:{address(target)}:{port},retry=50,interval=0.2")
        return source, target, port, process

    def end(self, transfer):
        source, target, port, process = transfer
        self.assertEqual(process.wait(180).rc, 0)
        wait_for(lambda: self.vm(target).run(f"test -e /tmp/whole{port}", check=False).rc == 0, "the end")
        sums = [self.vm(number).run(f"sha256sum <{name}{port}; wc -c <{name}{port}").out
                for number, name in ((source, "/tmp/out"), (target, "/tmp/in"))]
        self.assertEqual(*sums)
        self.assertIn(str(SIZE), sums[0])
        for number in (source, target):
            self.vm(number).run(f"rm -f /tmp/out{port} /tmp/in{port} /tmp/whole{port}")

    def reaches(self, source, target):
        return self.vm(source).run(f"ping -c 1 -W 2 -q {address(target)}", check=False).rc == 0

    def test_1_each_pings_each(self):
        self.fleet.await_pings()
        rows = self.fleet.rows()
        self.assertEqual([row["state"] for row in rows], ["runs"] * 4)
        for row in rows:
            self.assertGreaterEqual(row["sent"], 6)         # a request and an answer for each other one
            self.assertGreaterEqual(row["received"], 6)
        machines = {vif["vm"]["name"]: vif["vm"]["pid"] for vif in self.fleet.board.vifs().values()}
        self.assertEqual(machines, {f"svio-test-fleet-{vm.number}": vm.pid for vm in self.fleet.vms})

    def test_2_transfers_at_the_same_time(self):
        transfers = [self.begin(1, 2), self.begin(3, 4), self.begin(4, 1, 7001)]
        for transfer in transfers:
            self.end(transfer)

    def test_3_tenants(self):
        """Two VLANs: each tenant's VMs reach each other and nobody else, and no frame crosses."""
        for number, vlan in ((1, 7), (2, 7), (3, 8), (4, 8)):
            self.fleet.board.ctl("vif", "set", self.slot(number), "--vlan", vlan)
        wait_for(lambda: self.reaches(1, 2) and self.reaches(3, 4), "each tenant's own")
        self.assertEqual([self.reaches(source, target) for source, target in
                          ((1, 3), (1, 4), (2, 3), (2, 4), (3, 1), (4, 2))], [False] * 6)
        for number in range(1, 5):
            self.fleet.board.ctl("vif", "set", self.slot(number), "--vlan", 0)
        self.fleet.await_pings()

    def test_4_a_flood(self):
        """One VM sends to two others as fast as it can; transfers of and to these complete."""
        floods = [self.vm(3).spawn(FLOOD.format(to=address(to))) for to in (1, 4)]
        try:
            start = self.fleet.board.counters(self.slot(3))["tx_frames"]
            self.end(self.begin(2, 4))
            self.end(self.begin(1, 2, 7001))
            wait_for(lambda: self.fleet.board.counters(self.slot(3))["tx_frames"] > start + 500, "a flood")
        finally:
            for flood in floods:
                flood.kill()
            self.vm(3).run("pkill socat; true", check=False)
        self.fleet.await_pings()

    def test_5_death_and_return_under_traffic(self):
        """A VM is killed while others exchange files, and comes back while they do so again."""
        transfer, dead = self.begin(1, 2), self.vm(4)
        os.kill(dead.pid, signal.SIGKILL)
        self.end(transfer)
        wait_for(lambda: len(self.fleet.board.vifs()) == 3, "the VIF is reclaimed")
        with self.assertRaisesRegex(SvioError, "VM 4 has ended"):
            self.fleet.vm(4)
        self.assertEqual([row["state"] for row in self.fleet.rows()], ["runs"] * 3 + ["ended"])
        dead.stop()
        self.fleet.vms.remove(dead)
        transfer = self.begin(2, 3)
        self.fleet.launch(4).meet(300)
        self.end(transfer)
        self.fleet.await_pings()


class TestVerb(unittest.TestCase):
    """What a person types."""

    def call(self, *words, status=0, **options):
        args = types.SimpleNamespace(what=words[0], words=list(words[1:]), cores=1, port="none", queues=2,
                                     memory=256, json=None, **options)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(vms.main(args), status)
        return out.getvalue()

    def listed(self):
        out = io.StringIO()
        args = types.SimpleNamespace(what="list", words=[], json="-")
        with contextlib.redirect_stdout(out):
            vms.main(args)
        return json.loads(out.getvalue())

    def test_start_list_run_stop(self):
        try:
            text = self.call("2")
            self.assertIn("2 VMs are up", text)
            found = self.listed()
            self.assertEqual([(one["vm"], one["address"], one["state"]) for one in found["vms"]],
                             [(1, "10.9.0.1", "runs"), (2, "10.9.0.2", "runs")])
            self.assertEqual(self.call("run", "2", "hostname; ethtool -l eth0 | tail -n 2").split()[0], "vm2")
            self.assertEqual(self.call("run", "1", "exit", "7", status=7), "")
            with self.assertRaisesRegex(SvioError, "run already"):
                self.call("2")
            for words, sentence in ((("run", "9", "true"), "no VM 9"), (("run", "x"), "Which VM"),
                                    (("run", "1"), "What is to be run"), (("fly",), "After vms comes")):
                with self.subTest(words), self.assertRaisesRegex(SvioError, sentence):
                    self.call(*words)
            os.kill(found["vms"][0]["pid"], signal.SIGKILL)
            wait_for(lambda: self.listed()["vms"][0]["state"] == "ended", "the death is seen")
            with self.assertRaisesRegex(SvioError, "VM 1 has ended"):
                self.call("run", "1", "true")
            self.assertIn("VM 1 had ended before", self.call("stop"))
        except BaseException:
            with contextlib.suppress(SvioError):
                self.call("stop")
            raise
        for one in found["vms"]:
            self.assertFalse(self.runs(one["pid"], "svio-vms"))
        self.assertFalse(os.path.exists(found["board"]["socket"]))
        with self.assertRaisesRegex(SvioError, "No VMs of a board are running"):
            self.call("list")

    @staticmethod
    def runs(pid, word):
        """A process that nobody has waited for yet has no command line any more."""
        try:
            with open(f"/proc/{pid}/cmdline") as handle:
                return word in handle.read()
        except FileNotFoundError:
            return False

    def test_refusals(self):
        for what in ("0", "17"):
            with self.subTest(what), self.assertRaisesRegex(SvioError, "from 1 to 16"):
                self.call(what)
        with mock.patch.object(vms.host, "memory_mib", lambda: 2000), \
                self.assertRaisesRegex(SvioError, "need more memory than is free here"):
            self.call("8")


if __name__ == "__main__":
    unittest.main()
