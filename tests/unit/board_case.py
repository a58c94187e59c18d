# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of svio-board as a process have in common."""
import tempfile
import unittest

from attach_client import Connection, Machine, abi
from svio_tool import paths
from svio_tool.board_process import BoardProcess
from svio_tool.testing import sanitizer_environment
from wires import frame

MACS = [f"02:00:00:00:00:0{n}" for n in range(1, 9)]


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


class ProcessTest(unittest.TestCase):
    build = paths.BUILD

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *arguments):
        self.board = BoardProcess(self.folder, *arguments, build=self.build, env=sanitizer_environment())
        self.addCleanup(self._end, self.board)
        return self.board

    def _end(self, board):
        if board.process.poll() is None:
            self.assertEqual(board.end(), 0, board.said())
        said = board.said()
        for word in ("Sanitizer", "runtime error", "assert"):
            self.assertNotIn(word, said)

    def connect(self):
        connection = Connection(self.board.socket)
        self.addCleanup(connection.close)
        return connection

    def machine(self, number=0, **wanted):
        wanted.setdefault("mac", MACS[number])
        machine = Machine(self.board.socket, self.board.alive, **wanted)
        self.addCleanup(machine.close)
        return machine

    def running(self, number=0, **wanted):
        machine = self.machine(number, **wanted)
        machine.driver.bring_up()
        return machine

    def check_way(self, source, target, sizes=(60, 64, 1514, 9018)):
        """Frames from one machine to another arrive as they were sent."""
        macs = [bytes(machine.driver.read(abi.SVIO_REG_MAC_LO).to_bytes(4, "little")
                      + machine.driver.read(abi.SVIO_REG_MAC_LO + 4).to_bytes(4, "little")[:2])
                for machine in (source, target)]
        for seed, size in enumerate(sizes):
            data = frame(size, seed, to=macs[1], source=macs[0])
            source.driver.transmit(data)
            self.assertEqual(target.driver.expect(), data)


def sanitized(namespace, *cases):
    """All of it once more where a mistake shows."""
    for folder in ("asan", "tsan"):
        for case in cases:
            name = f"{case.__name__}{folder.capitalize()}"
            namespace[name] = type(name, (case,), {"build": paths.BUILD / folder,
                                                   "__module__": case.__module__})
