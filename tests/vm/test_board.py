# SPDX-License-Identifier: GPL-2.0-or-later
"""Booted guests whose cards are VIFs of one svio-board: the same driver, another process behind it."""
import os
import signal
import tempfile
import unittest
from contextlib import ExitStack

from case import wait_for
from svio_tool import transfer
from svio_tool.board_process import BoardProcess
from svio_tool.vm import Vm
from wires import DEADLINE

MEMORY = 256
SIZE = 8 << 20


class TestBoard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.folder = cls.stack.enter_context(tempfile.TemporaryDirectory(prefix="svio-vm-"))
        cls.start_board()
        cls.stack.callback(lambda: cls.board.kill())
        cls.vms = [cls.boot(number) for number in range(2)]

    @classmethod
    def start_board(cls):
        cls.board = BoardProcess(cls.folder)

    @classmethod
    def boot(cls, number):
        vm = cls.stack.enter_context(Vm(
            f"board-{number}", plugin=True, memory=MEMORY, shared_memory=True,
            nics=[f"svio-vif,id=svio0,board={cls.board.socket},mac=52:54:00:76:70:{number:02x}"]))
        vm.run(f"ip addr add 10.9.0.{number + 1}/24 dev eth0 && ip link set eth0 up")
        return vm

    def tearDown(self):
        for vm in self.vms:
            self.assertEqual(vm.kernel_problems(), [])

    def ping(self, source, target):
        wait_for(lambda: self.vms[source].run(f"ping -c 1 -W 5 10.9.0.{target + 1}", check=False).rc == 0,
                 lambda: f"no answer from {target} to {source}: " + self.vms[source].run("ip -s link").out)

    def transfer(self, source, target):
        """A random file by TCP; the sums agree."""
        vms = self.vms
        vms[source].run(f"dd if=/dev/urandom of=/tmp/out bs=1M count={SIZE >> 20} 2>/dev/null")
        vms[target].run("(socat -u TCP4-LISTEN:7000,reuseaddr CREATE:/tmp/in; touch /tmp/whole) "
                        ">/dev/null 2>&1 </dev/null &")
        vms[source].run(f"socat -u FILE:/tmp/out TCP4:10.9.0.{target + 1}:7000,retry=50,interval=0.2",
                        timeout=2 * DEADLINE)
        wait_for(lambda: vms[target].run("test -e /tmp/whole", check=False).rc == 0, "the receiver's end")
        sums = [vms[n].run(f"sha256sum <{name}; wc -c <{name}").out
                for n, name in ((source, "/tmp/out"), (target, "/tmp/in"))]
        self.assertEqual(*sums)
        for vm in vms:
            vm.run("rm -f /tmp/out /tmp/in /tmp/whole")

    def test_1_ping(self):
        for source, target in ((0, 1), (1, 0)):
            self.ping(source, target)
        self.assertEqual([vif["running"] for vif in self.board.vifs().values()], [True, True])

    def test_2_transfers(self):
        self.transfer(0, 1)
        self.transfer(1, 0)

    def test_3_vlan_of_management(self):
        """VIFs of two tenants do not hear each other; in one VLAN they do."""
        self.ping(0, 1)
        slots = sorted(self.board.vifs())
        self.assertEqual(len(slots), 2)
        self.board.ctl("vif", "set", slots[0], "--vlan", "7")
        before = self.board.counters(slots[1])
        self.assertNotEqual(self.vms[0].run("ping -c 2 -W 1 10.9.0.2", check=False).rc, 0, before)
        self.board.ctl("vif", "set", slots[1], "--vlan", "7")
        self.ping(0, 1)
        for slot in slots:
            self.board.ctl("vif", "set", slot, "--vlan", "0")
        self.ping(0, 1)

    def test_4_board_is_killed(self):
        """The link goes down, nothing hangs; with the next board traffic goes on by itself."""
        self.ping(0, 1)
        self.board.kill()
        for vm in self.vms:
            wait_for(lambda vm=vm: vm.run("cat /sys/class/net/eth0/carrier").out.strip() == "0", "link down")
        self.start_board()
        for vm in self.vms:
            wait_for(lambda vm=vm: vm.run("cat /sys/class/net/eth0/carrier").out.strip() == "1", "link up")
        self.ping(0, 1)
        self.transfer(0, 1)

    def test_5_what_dies_with_the_board_is_counted(self):
        """Messages in the send queue of a board that does not work any more, and is killed."""
        def counted(name):
            return int(self.vms[0].run(f"cat /sys/class/net/eth0/statistics/tx_{name}").out)

        self.ping(0, 1)
        self.vms[0].run("ip neigh change 10.9.0.2 dev eth0 nud permanent")
        os.kill(self.board.process.pid, signal.SIGSTOP)
        dropped, packets = counted("dropped"), counted("packets")
        self.vms[0].run("ping -c 7 -i 0.01 -W 1 10.9.0.2", check=False)
        self.assertEqual(counted("packets"), packets, "nobody has sent them")
        self.board.kill()
        self.start_board()
        self.vms[0].run("ip neigh change 10.9.0.2 dev eth0 nud reachable")
        self.ping(0, 1)
        lost = int(self.vms[0].run("ethtool -S eth0 | sed -n 's/ *tx0_lost: //p'").out)
        self.assertGreaterEqual(lost, 7)
        self.assertGreaterEqual(counted("dropped") - dropped, 7)


class TestUserNetwork(unittest.TestCase):
    """--port slirp: a guest of the board and a server of the host."""

    def test_transfer(self):
        """A file each way by TCP; the sums agree."""
        with tempfile.TemporaryDirectory(prefix="svio-vm-") as folder:
            board = BoardProcess(folder, "--port", "slirp")
            try:
                with Vm("board-user", plugin=True, memory=MEMORY, shared_memory=True,
                        nics=[f"svio-vif,id=svio0,board={board.socket},mac={transfer.MAC}"]) as vm:
                    transfer.prepare_guest(vm)
                    figures = transfer.exchange(vm, SIZE)
                    self.assertTrue(figures["agree"], figures)
                    (vif,) = board.vifs()
                    self.assertGreater(board.counters(vif)["rx_bytes"], SIZE)
                    self.assertGreater(board.counters(vif)["tx_bytes"], SIZE)
                    self.assertEqual(vm.kernel_problems(), [])
                self.assertEqual(board.end(), 0, board.said())
            finally:
                board.kill()


if __name__ == "__main__":
    unittest.main()
