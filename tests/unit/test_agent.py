# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent's client, against an agent that answers when the test says so."""
import json
import socket
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import qmp  # noqa: E402 (the path comes first)
from svio_tool.agent import Agent, GuestError  # noqa: E402


class SlowAgent(threading.Thread):
    """Answers "first" only when `release` is set, all else at once; as qemu-ga it goes on with one connection
    after the other, and what it owes it says on the one that is there."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.release = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.owes = []

    def run(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            with peer, peer.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line.lstrip(b"\xff"))
                    for owed in self.owes:
                        peer.sendall(owed)
                    self.owes = []
                    self.answer(peer, request)

    def answer(self, peer, request):
        name = request["execute"]
        value = request["arguments"]["id"] if name == "guest-sync-delimited" else {"of": name}
        text = json.dumps({"return": value}).encode() + b"\n"
        if name == "first" and not self.release.is_set():
            self.owes.append(text)
        else:
            peer.sendall(text)


class TestAgent(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        self.server = SlowAgent(f"{folder.name}/agent")
        self.addCleanup(self.server.listener.close)
        self.server.start()
        self.agent = Agent(f"{folder.name}/agent", lambda: None)
        self.addCleanup(self.agent.close)
        self.agent.connect(10)

    def test_answers(self):
        self.assertEqual(self.agent.call("second"), {"of": "second"})
        self.server.release.set()
        self.assertEqual(self.agent.call("first"), {"of": "first"})

    def test_after_a_timeout(self):
        with self.assertRaisesRegex(GuestError, "did not answer first within 0 s"):
            self.agent.call("first", timeout=0)
        self.assertEqual(self.agent.call("second"), {"of": "second"})
        self.assertEqual(self.agent.call("third"), {"of": "third"})

    def test_after_an_interrupt(self):
        """What is asked while cleaning up gets its own answer, not that which was not waited for."""
        with mock.patch.object(qmp.LineSocket, "receive", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.agent.call("first")
        self.assertEqual(self.agent.call("second"), {"of": "second"})
        self.assertEqual(self.agent.call("third"), {"of": "third"})


class TestGreeting(unittest.TestCase):
    def test_a_greeting_that_is_lost_is_said_again(self):
        """As on the console of a guest of Xen, which is not yet there for the first ones."""
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(f"{folder.name}/agent")
        listener.listen()
        heard = []

        def serve():
            peer = listener.accept()[0]
            with peer, peer.makefile("rb") as lines:
                for line in lines:
                    heard.append(json.loads(line.lstrip(b"\xff"))["arguments"]["id"])
                    if len(heard) == 3:     # late answers come first, and are not what is waited for
                        peer.sendall(json.dumps({"return": heard[1]}).encode() + b"\n")
                        time.sleep(0.3)     # and that it answers at all says that no more are needed
                        peer.sendall(json.dumps({"return": heard[2]}).encode() + b"\n")
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        agent = Agent(f"{folder.name}/agent", lambda: None)
        self.addCleanup(agent.close)
        with mock.patch("svio_tool.agent.GREETING", 0.05):
            agent.connect(60)
        self.assertEqual(agent.number, heard[2])
        self.assertEqual(heard, [heard[0], heard[0] + 1, heard[0] + 2])


if __name__ == "__main__":
    unittest.main()
