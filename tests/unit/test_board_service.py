# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-board as a service: what it says to systemd, what it logs, and how it ends."""
import json
import os
import signal
import socket
import tempfile
import time
import unittest
from pathlib import Path

import attach_client
from attach_client import CutOff, Machine, request
from machine import wait_for
from svio_tool import paths
from svio_tool.board_process import BoardProcess

PATIENCE = 60
BURST = 100         # lines of an event in ten seconds
MAC = "02:00:00:00:00:01"


class Service(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notes.close)
        self.notes.bind(str(self.folder / "notify"))
        self.notes.settimeout(PATIENCE)

    def start(self, *arguments, **environment):
        env = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **environment}
        self.board = BoardProcess(self.folder, *arguments, build=paths.BUILD, env=env)
        self.addCleanup(lambda: self.board.process.poll() is None and self.board.kill())

    def note(self):
        return self.notes.recv(4096).decode()

    def machine(self, **wanted):
        machine = Machine(self.board.socket, self.board.alive, mac=MAC, **wanted)
        self.addCleanup(machine.close)
        return machine

    def garbage(self):
        connection = attach_client.Connection(self.board.socket)
        with self.assertRaises(CutOff):
            connection.send(b"garbage", ())
            connection.receive()
        connection.close()


class TestNotify(Service):
    def test_life(self):
        """Ready when the sockets accept; how many machines there are; and the end, whatever asks for it."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                self.start()
                self.assertEqual([self.note(), self.note()], ["READY=1", "STATUS=0 machines"])
                self.assertEqual(len(self.board.ctl("vif", "list")["vifs"]), 1)
                machine = self.machine()
                self.assertEqual(self.note(), "STATUS=1 machine")
                machine.close()
                self.assertEqual(self.note(), "STATUS=0 machines")
                self.board.process.send_signal(number)
                self.assertEqual(self.note(), "STOPPING=1")
                self.assertEqual(self.board.process.wait(PATIENCE), 0)
                self.assertEqual(sorted(os.listdir(self.folder)), ["log", "notify"])

    def test_watchdog(self):
        self.start(WATCHDOG_USEC="100000")
        self.assertEqual([self.note() for _ in range(5)],
                         ["READY=1", "STATUS=0 machines", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"])
        # A process that does not turn its loop does not feed it.
        os.kill(self.board.process.pid, signal.SIGSTOP)
        self.notes.settimeout(1)
        with self.assertRaises(TimeoutError):
            for _ in range(10):
                self.note()
        os.kill(self.board.process.pid, signal.SIGCONT)
        self.notes.settimeout(PATIENCE)
        self.assertEqual(self.note(), "WATCHDOG=1")
        self.assertEqual(self.board.end(), 0)


class TestLog(Service):
    def lines(self):
        return [json.loads(line) for line in self.board.said().splitlines()]

    def events(self):
        return [line["event"] for line in self.lines()]

    def test_json(self):
        self.start("--log-format", "json")
        self.machine(machine='a "name"\n\x1b[2J').close()
        wait_for(lambda: "left" in self.events(), "the end of the connection")
        self.garbage()
        connection = attach_client.Connection(self.board.socket)
        connection.send(attach_client.header(request("RESET"), 0), ())
        connection.receive()
        connection.close()
        self.assertEqual(self.board.end(), 0)
        self.assertEqual(self.events(), ["ready", "attached", "left", "cut-off", "refused", "end"])
        ready, attached, left, cut_off, refused, _ = self.lines()
        self.assertEqual((ready["socket"], ready["port"], ready["cores"]),
                         (str(self.board.socket), "none", 1))
        self.assertEqual((attached["pid"], attached["slot"], attached["priority"]), (os.getpid(), 1, 6))
        self.assertEqual(attached["vm"], 'a "name"??[2J')
        self.assertEqual((left["slot"], left["vm"]), (1, attached["vm"]))
        self.assertEqual((cut_off["priority"], cut_off["reason"]),
                         (4, "a packet of 7 bytes is shorter than its header"))
        self.assertEqual(refused["reason"], "a request came out of order")
        for line in self.lines():
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_journal(self):
        """systemd takes the priority from the line's beginning."""
        self.start(JOURNAL_STREAM="8:1")
        self.garbage()
        self.assertEqual(self.board.end(), 0)
        lines = self.board.said().splitlines()
        self.assertEqual([line.split("svio-board")[0] for line in lines], ["<6>", "<4>", "<6>"])

    def test_no_flood(self):
        """Who is cut off again and again does not fill a disk, and what is not written is counted."""
        self.start("--log-format", "json")
        begin, count = time.monotonic(), 3 * BURST
        for _ in range(count):
            self.garbage()
        periods = int((time.monotonic() - begin) / 10) + 1
        written = [line for line in self.lines() if line["event"] == "cut-off"]
        self.assertGreaterEqual(len(written), BURST)
        self.assertLessEqual(len(written), BURST * periods)
        self.machine()      # others are written as before
        self.assertEqual(self.events()[-1], "attached")
        told = sum(line.get("unwritten", 0) for line in written)
        self.assertLessEqual(len(written) + told, count)
        self.assertEqual(self.board.end(), 0)


if __name__ == "__main__":
    unittest.main()
