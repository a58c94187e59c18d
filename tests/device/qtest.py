# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of QEMU's qtest protocol: port I/O and memory as the machine's first CPU sees them.

Each access is one line and one answer; batch() sends many lines at once, which saves the round trips.
"""
import base64
import os
import select
import time

# Seconds. Not a measure of speed: what takes longer hangs.
DEADLINE = float(os.environ.get("SVIO_DEADLINE", 60))


class QtestError(Exception):
    """QEMU refused an access, or does not answer."""


class Qtest:
    def __init__(self, sock, alive):
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.alive = alive
        self.buffer = bytearray()

    def close(self):
        self.sock.close()

    def _answer(self, deadline):
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                line = bytes(self.buffer[:end]).decode()
                del self.buffer[:end + 1]
                if line.startswith("IRQ "):
                    continue
                if not line.startswith("OK"):
                    raise QtestError(f"QEMU answered: {line}")
                return line[3:]
            left = deadline - time.monotonic()
            if left <= 0:
                raise QtestError(f"QEMU did not answer within {DEADLINE} s")
            if not select.select([self.sock], [], [], min(left, 0.5))[0]:
                self.alive()
                continue
            data = self.sock.recv(1 << 20)
            if not data:
                self.alive()
                raise QtestError("QEMU closed the qtest connection")
            self.buffer += data

    def command(self, line):
        return self.batch([line])[0]

    def batch(self, lines):
        """The answers of many commands."""
        answers = []
        for first in range(0, len(lines), 256):
            part = lines[first:first + 256]
            try:
                self.sock.sendall("".join(line + "\n" for line in part).encode())
            except OSError as error:
                self.alive()
                raise QtestError(f"QEMU takes no commands any more: {error}") from error
            deadline = time.monotonic() + DEADLINE
            answers += [self._answer(deadline) for _ in part]
        return answers

    # ---- ports ----

    def out(self, size, port, value):
        self.command(f"out{'?bw?l'[size]} {port:#x} {value:#x}")

    def in_(self, size, port):
        return int(self.command(f"in{'?bw?l'[size]} {port:#x}"), 16)

    # ---- memory: one access of 1, 2, 4 or 8 bytes ----

    def load(self, size, address):
        return int(self.command(f"read{'?bw?l???q'[size]} {address:#x}"), 16)

    def store(self, size, address, value):
        self.command(self.store_line(size, address, value))

    @staticmethod
    def store_line(size, address, value):
        return f"write{'?bw?l???q'[size]} {address:#x} {value:#x}"

    # ---- memory: bytes ----

    def read(self, address, length):
        return base64.b64decode(self.command(f"b64read {address:#x} {length:#x}")) if length else b""

    def write(self, address, data):
        if data:
            self.command(self.write_line(address, data))

    @staticmethod
    def write_line(address, data):
        return f"b64write {address:#x} {len(data):#x} {base64.b64encode(data).decode()}"

    def fill(self, address, length, byte):
        self.command(f"memset {address:#x} {length:#x} {byte:#x}")
