# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the archives that Linux takes as initramfs ("newc"), device nodes included, without root."""
import os
import stat


class Archive:
    """One cpio archive; Linux accepts several of them one after the other in a single file."""

    def __init__(self, handle):
        self.handle = handle
        self.number = 0
        self.folders = set()

    def _entry(self, name, mode, data=b"", links=1, device=(0, 0)):
        self.number += 1
        raw = name.encode() + b"\0"
        # Fixed time and owner: the same input gives the same archive.
        fields = (self.number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._padded(header + raw)
        self._padded(data)

    def _padded(self, data):
        self.handle.write(data + b"\0" * (-len(data) % 4))

    def folder(self, name, mode=0o755):
        """A folder and those above it."""
        name = name.strip("/")
        if not name or name in self.folders:
            return
        self.folder(os.path.dirname(name))
        self.folders.add(name)
        self._entry(name, stat.S_IFDIR | mode, links=2)

    def data(self, name, content, mode=0o644):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, content)

    def file(self, name, path, mode=None):
        with open(path, "rb") as handle:
            content = handle.read()
        self.data(name, content, os.stat(path).st_mode & 0o777 if mode is None else mode)

    def link(self, name, target):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name, major, minor, mode=0o600):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFCHR | mode, device=(major, minor))

    def end(self):
        self._entry("TRAILER!!!", 0)
        # The next archive must begin on a multiple of four; 512 is what cpio itself does.
        self.handle.write(b"\0" * (-self.handle.tell() % 512))
