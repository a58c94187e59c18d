# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-copies.so in a program whose copies are known."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import anatomy, paths  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

# It prints what was counted while each part ran: (copies, bytes, moved by system calls, bytes).
PROGRAM = """
import ctypes, json, os, socket, struct, sys
file = os.open(os.environ["SVIO_COPIES"], os.O_RDONLY)
look = lambda: struct.unpack("=4Q", os.pread(file, 32, 0))
here, there = ctypes.create_string_buffer(2000), ctypes.create_string_buffer(2000)
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
libc = ctypes.CDLL(None)
into = bytearray(1000)
def copy(name, length):
    step = getattr(libc, name)
    for _ in range(1000):
        step(here, there, length)
def move(length):
    for _ in range(100):
        left.send(bytes(length))
        right.recv_into(into)
def message():
    for _ in range(100):
        left.sendmsg([bytes(300), bytes(400)])
        right.recvmsg_into([into])
def files():
    reader, writer = os.pipe()
    for _ in range(100):
        os.write(writer, bytes(500))
        os.readv(reader, [into])
parts = {"memcpy 256": lambda: copy("memcpy", 256), "memmove 1414": lambda: copy("memmove", 1414),
         "memmove 255": lambda: copy("memmove", 255), "send 700": lambda: move(700),
         "send 200": lambda: move(200), "message": message, "files": files}
found = {}
for name, part in parts.items():
    before = look()
    part()
    found[name] = [new - old for old, new in zip(before, look())]
ctypes.memmove(ctypes.byref(here, 1), here, 1500)       # they overlap
print(json.dumps(found))
"""


class Copies(unittest.TestCase):
    def run_with(self, path, program=PROGRAM):
        environment = {**os.environ, "LD_PRELOAD": str(paths.COPIES), "SVIO_COPIES": str(path)}
        return subprocess.run(["/usr/bin/python3", "-c", program], env=environment, capture_output=True,
                              text=True, check=False)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "copies"

    def test_counts(self):
        done = self.run_with(self.path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found = json.loads(done.stdout)
        for name, number, length in (("memcpy 256", 1000, 256), ("memmove 1414", 1000, 1414),
                                     ("memmove 255", 0, 0)):
            copies, copied, *moved = found[name]
            self.assertEqual(moved, [0, 0], name)
            # The interpreter may have a copy of its own in between.
            self.assertTrue(number <= copies < number + 20, (name, copies))
            self.assertTrue(number * length <= copied < number * length + 100000, (name, copied))
        for name, expected in (("send 700", [200, 140000]), ("send 200", [0, 0]), ("message", [200, 140000]),
                               ("files", [200, 100000])):
            self.assertEqual(found[name][2:], expected, name)

    def test_what_the_anatomy_reads(self):
        self.assertEqual(self.run_with(self.path).returncode, 0)
        _, copied, _, moved = struct.unpack("=4Q", self.path.read_bytes())
        self.assertEqual(anatomy.read_copies(self.path), (copied, moved))
        self.assertGreater(min(copied, moved), 380000)
        self.path.write_bytes(b"short")
        with self.assertRaisesRegex(SvioError, "not counted"):
            anatomy.read_copies(self.path)

    def test_a_file_that_cannot_be_written(self):
        done = self.run_with(self.path / "nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("svio-copies: SVIO_COPIES: No such file or directory", done.stderr)

    def test_a_program_without_a_file(self):
        """Whoever else inherits the library runs as ever."""
        environment = {**os.environ, "LD_PRELOAD": str(paths.COPIES)}
        environment.pop("SVIO_COPIES", None)
        done = subprocess.run(["/usr/bin/python3", "-c", "print(bytes(3000).hex() == '00' * 3000)"],
                              env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "True\n"))


if __name__ == "__main__":
    unittest.main()
