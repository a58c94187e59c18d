# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that arrive in the guest, byte by byte: tcpdump there, read here."""
import re
import struct

from case import wait_for
from wires import DEADLINE

LONGEST = 10240


def parse_pcap(data):
    """The frames of a capture file as far as they are whole."""
    assert data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"), "no capture file"
    found, at = [], 24
    while at + 16 <= len(data):
        length, whole = struct.unpack_from("<II", data, at + 8)
        assert length == whole <= LONGEST, f"a frame of {whole} bytes"
        if at + 16 + length > len(data):
            break
        found.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return found


class Capture:
    """with Capture(vm, dev, filter) as capture: ...; capture.frames() has what came in so far."""

    number = 0

    def __init__(self, vm, dev, words, promiscuous=False, prefix=""):
        """prefix: words before the command, as of another network namespace."""
        self.vm, self.dev, self.words, self.promiscuous = vm, dev, words, promiscuous
        self.prefix = prefix
        Capture.number += 1
        self.path = f"/tmp/capture{Capture.number}"

    def __enter__(self):
        mode = "" if self.promiscuous else "-p"
        # Only what comes in; each frame is written at once. Of a card with offloads each slot of tcpdump's
        # ring is as long as the longest frame may be.
        self.process = self.vm.spawn(f"exec {self.prefix} tcpdump -Z root -n -U --immediate-mode -Q in "
                                     f"-B 16384 -s {LONGEST} {mode} -i {self.dev} -w {self.path} "
                                     f"{self.words} 2>{self.path}.err")
        wait_for(lambda: "listening on" in self.vm.run(f"cat {self.path}.err", check=False).out,
                 "tcpdump listens")
        return self

    def frames(self):
        data = self.vm.get(self.path)
        return parse_pcap(data) if len(data) >= 24 else []

    def wait_frames(self, count):
        """Exactly this many, in their order; more would be seen as well."""
        found = []

        def there():
            found[:] = self.frames()
            return len(found) >= count
        wait_for(there, lambda: f"{count} frames captured, now {len(found)}", DEADLINE)
        return found

    def __exit__(self, *ignored):
        self.process.kill(2)
        result = self.process.wait(DEADLINE)
        said = self.vm.run(f"cat {self.path}.err; rm -f {self.path} {self.path}.err").out
        lost = re.search(r"(\d+) packets? dropped by kernel", said)
        assert lost and lost[1] == "0", f"tcpdump ({result.rc}) lost frames itself: {said}"
