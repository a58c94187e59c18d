# SPDX-License-Identifier: GPL-2.0-or-later
"""This terminal, joined to a guest's console or to what a command in a guest says."""
import contextlib
import os
import select
import sys
import termios
import tty

from svio_tool import ui


def relay(done):
    """What a command in a guest has said, as if it had run here; its status."""
    sys.stdout.write(done.out)
    sys.stderr.write(done.err)
    return done.rc


def join(line, leave=b""):
    """This terminal and a stream of bytes, until Ctrl-] or the end of either."""
    ui.say("Ctrl-] leaves.")
    saved = termios.tcgetattr(0) if sys.stdin.isatty() else None
    try:
        if saved is not None:
            tty.setraw(0)
        line.settimeout(10)
        line.sendall(b"\n")
        sources = [0, line]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if line in ready:
                data = line.recv(65536)
                if not data:
                    return
                os.write(1, data)
            if 0 in ready:
                data = os.read(0, 4096)
                if not data or b"\x1d" in data:
                    line.sendall(data.split(b"\x1d")[0])
                    if saved is None:
                        _drain(line)
                    return
                line.sendall(data)
    finally:
        if leave:
            with contextlib.suppress(OSError):
                line.sendall(leave)
                _drain(line)
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        ui.say()


def _drain(line):
    """What still comes after the last word of a script."""
    while select.select([line], [], [], 2)[0]:
        data = line.recv(65536)
        if not data:
            return
        os.write(1, data)
