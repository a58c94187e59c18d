# SPDX-License-Identifier: GPL-2.0-or-later
"""Two talkers of JSON lines: QEMU's monitor (QMP) and the guest agent.

Each answer is awaited with a deadline, never with a fixed pause; what is slow is not wrong.
"""
import json
import os
import select
import socket
import tempfile
import time

from svio_tool.ui import SvioError


class QmpError(SvioError):
    """QEMU refused a command, or does not answer."""


def connect_unix(path, deadline, alive=lambda: None):
    """A connected socket; waits for the server to appear, and calls alive() while it does."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect_long(sock, str(path))
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            alive()
            if time.monotonic() > deadline:
                raise QmpError(f"Nothing answers at {path}") from None
            time.sleep(0.02)
        except BaseException:
            sock.close()
            raise


def _connect_long(sock, path):
    """Unix socket paths end at 107 bytes; through a short link longer ones work, too."""
    if len(path) < 108:
        sock.connect(path)
        return
    with tempfile.TemporaryDirectory(prefix="svio-") as folder:
        link = os.path.join(folder, "s")
        os.symlink(path, link)
        sock.connect(link)


class LineSocket:
    """JSON values separated by newlines over a socket."""

    def __init__(self, sock, alive=lambda: None):
        self.sock = sock
        self.alive = alive
        self.buffer = bytearray()
        self.where = 0

    def send(self, value, prefix=b""):
        try:
            self.sock.settimeout(60)
            self.sock.sendall(prefix + json.dumps(value).encode() + b"\n")
        except OSError:
            self._lost()

    def receive(self, deadline):
        """The next value, or None when the deadline passes."""
        while True:
            line = self._line()
            if line is not None:
                return line
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            ready, _, _ = select.select([self.sock], [], [], min(left, 0.5))
            if not ready:
                self.alive()
                continue
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                self._lost()
            self.buffer += data

    def _lost(self):
        """The other end is gone. A QEMU that dies closes its sockets a moment before its status is known."""
        end = time.monotonic() + 3
        while time.monotonic() < end:
            self.alive()
            time.sleep(0.05)
        raise QmpError("QEMU closed the connection")

    def _line(self):
        while True:
            # Search each byte once only: an answer may have megabytes.
            end = self.buffer.find(b"\n", self.where)
            if end < 0:
                self.where = len(self.buffer)
                return None
            raw = bytes(self.buffer[:end])
            del self.buffer[:end + 1]
            self.where = 0
            # 0xff marks where an agent starts afresh after a synchronisation.
            raw = raw.rsplit(b"\xff", 1)[-1].strip()
            if raw:
                try:
                    return json.loads(raw)
                except ValueError:
                    continue

    def close(self):
        self.sock.close()


class QmpClient:
    """QEMU's monitor. Events that arrive in between are kept for wait_event()."""

    def __init__(self, path, timeout=60, alive=lambda: None):
        deadline = time.monotonic() + timeout
        self.line = LineSocket(connect_unix(path, deadline, alive), alive)
        self.events = []
        self.number = 0
        if self.line.receive(deadline) is None:
            raise QmpError("QEMU's monitor does not greet; another program may be talking to it")
        self.command("qmp_capabilities")

    def command(self, name, arguments=None, timeout=60):
        self.number += 1
        request = {"execute": name, "id": self.number}
        if arguments:
            request["arguments"] = arguments
        self.line.send(request)
        deadline = time.monotonic() + timeout
        while True:
            answer = self.line.receive(deadline)
            if answer is None:
                raise QmpError(f"QEMU did not answer {name} within {timeout:g} s")
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id") == self.number:
                if "error" in answer:
                    raise QmpError(f"QEMU refused {name}: {answer['error'].get('desc')}")
                return answer["return"]

    def wait_event(self, name, timeout=60):
        """The first event of this name that was not fetched before; None when none comes in time."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(index)
            answer = self.line.receive(deadline)
            if answer is None:
                return None
            if "event" in answer:
                self.events.append(answer)

    def close(self):
        self.line.close()
