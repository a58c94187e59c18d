# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes whose lines are taken as they come, several at a time."""
import os
import select
import signal
import subprocess
import time

from svio_tool import ui

# Not a measure of speed: a test that says nothing for so long hangs.
PATIENCE = 900


class Followed:
    """Starts a command. Its lines, or those of a pipe that it got, go to take(line), which may return the
    seconds to wait for the next one. `log` is a file for the rest of what it says. It gets the descriptors.

    status: the exit status once it has ended; None if it hung and was ended.
    """

    def __init__(self, command, take, log, environment, pipe=None, descriptors=()):
        self.take, self.by_pipe = take, pipe is not None
        self.handle = open(log, "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
            stdout=self.handle if self.by_pipe else subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(*descriptors, *(pipe[1:] if self.by_pipe else ())))
        if self.by_pipe:
            os.close(pipe[1])
        self.source = pipe[0] if self.by_pipe else self.process.stdout.fileno()
        self.rest, self.patience, self.status = b"", PATIENCE, None
        self.heard = time.monotonic()

    def fileno(self):
        return self.source

    def deadline(self):
        return self.heard + self.patience

    def read(self):
        """Takes what is there; False when nothing can come any more."""
        data = os.read(self.source, 1 << 16)
        if not data:
            return False
        if not self.by_pipe:
            self.handle.write(data)
            self.handle.flush()
        self.heard = time.monotonic()
        *whole, self.rest = (self.rest + data).split(b"\n")
        for line in whole:
            self.patience = self.take(line.decode(errors="replace")) or PATIENCE
        return True

    def hung(self):
        if self.by_pipe:
            # It says where its threads are.
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        ui.end_group(self.process)

    def close(self):
        if self.process.poll() is None:
            # First as Ctrl-C, so that the tests can end their own VMs.
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                ui.end_group(self.process)
        if self.by_pipe:
            os.close(self.source)
        else:
            self.process.stdout.close()
        self.handle.close()


def follow(*followed):
    """Until all have ended, or hung."""
    running = list(followed)
    try:
        while running:
            wait = min(one.deadline() for one in running) - time.monotonic()
            ready, _, _ = select.select(running, [], [], max(0, wait))
            for one in ready:
                if not one.read():
                    one.status = one.process.wait()
                    running.remove(one)
            for one in [one for one in running if time.monotonic() > one.deadline()]:
                one.hung()
                running.remove(one)
    finally:
        for one in followed:
            one.close()
