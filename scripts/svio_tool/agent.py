# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent (qemu-ga) over virtio-serial: runs programs and moves files without the network."""
import base64
import time
from collections import namedtuple

from svio_tool.paths import GUEST_SLOWNESS
from svio_tool.qmp import LineSocket, QmpError, connect_unix
from svio_tool.ui import SvioError

GuestResult = namedtuple("GuestResult", "rc out err")

FIRST_POLL = 0.005
LAST_POLL = 0.1
CHUNK = 96 * 1024
ANSWER = 60 * GUEST_SLOWNESS    # seconds that a guest has, where nobody says otherwise
GREETING = 1.0              # seconds until one that nobody has answered is said again


class GuestError(SvioError):
    """A command in the guest failed, or did not end in time."""

    def __init__(self, sentence, result=None):
        detail = ""
        if result:
            detail = "\n".join(part for part in (result.out.strip(), result.err.strip()) if part)
        super().__init__(sentence, detail)
        self.result = result


class Agent:
    def __init__(self, path, alive):
        self.path = path
        self.alive = alive
        self.line = None
        self.owed = False       # an answer, to whom does not wait for it any more
        self.number = int(time.time()) % 1000000

    def connect(self, timeout):
        """Wait until the agent in the guest answers. What is sent early waits in the socket; on the console
        of a guest of Xen it is lost."""
        deadline = time.monotonic() + timeout
        self.line = LineSocket(connect_unix(self.path, deadline, self.alive), self.alive)
        first = self.number + 1
        while time.monotonic() < deadline:
            self.number += 1
            self.line.send({"execute": "guest-sync-delimited", "arguments": {"id": self.number}}, b"\xff")
            again = min(deadline, time.monotonic() + GREETING)
            while True:
                answer = self.line.receive(again)
                if answer is None:
                    break
                # On a console there was other talk before.
                said = answer.get("return") if isinstance(answer, dict) else None
                if said == self.number:
                    self.owed = False
                    return
                if isinstance(said, int) and first <= said < self.number:
                    again = deadline        # it has begun to answer: the last one's turn comes
        raise GuestError(f"The guest did not come up within {timeout:g} s")

    def call(self, name, timeout=ANSWER, **arguments):
        if self.owed:
            # After a timeout, or Ctrl-C: it may still come, and must not be taken for that of this command.
            self.line.close()
            self.connect(ANSWER)
        self.owed = True
        self.line.send({"execute": name, "arguments": arguments} if arguments else {"execute": name})
        answer = self.line.receive(time.monotonic() + timeout)
        if answer is None:
            raise GuestError(f"The guest agent did not answer {name} within {timeout:g} s")
        self.owed = False
        if "error" in answer:
            raise GuestError(f"The guest agent refused {name}: {answer['error'].get('desc')}")
        return answer["return"]

    def spawn(self, command, stdin=None):
        words = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True,
                 "env": ["PATH=/usr/sbin:/usr/bin:/usr/local/bin", "HOME=/root", "LC_ALL=C"]}
        if stdin is not None:
            words["input-data"] = base64.b64encode(stdin).decode()
        return GuestProcess(self, command, self.call("guest-exec", **words)["pid"])

    def run(self, command, timeout=ANSWER, check=True, stdin=None):
        process = self.spawn(command, stdin)
        result = process.wait(timeout)
        if check and result.rc:
            raise GuestError(f"In the guest, exit status {result.rc}: {command}", result)
        return result

    def put(self, name, data, mode=None):
        handle = self.call("guest-file-open", path=name, mode="w")
        try:
            for start in range(0, len(data), CHUNK):
                part = bytes(data[start:start + CHUNK])
                while part:
                    done = self.call("guest-file-write", handle=handle,
                                     **{"buf-b64": base64.b64encode(part).decode()})["count"]
                    part = part[done:]
        finally:
            self.call("guest-file-close", handle=handle)
        if mode is not None:
            self.run(f"chmod {mode:o} '{name}'")

    def get(self, name):
        handle = self.call("guest-file-open", path=name, mode="r")
        parts = []
        try:
            while True:
                answer = self.call("guest-file-read", handle=handle, count=CHUNK)
                parts.append(base64.b64decode(answer["buf-b64"]))
                if answer["eof"] or not answer["count"]:
                    return b"".join(parts)
        finally:
            self.call("guest-file-close", handle=handle)

    def close(self):
        if self.line:
            self.line.close()


def _text(answer, key):
    return base64.b64decode(answer.get(key, "")).decode(errors="replace")


class GuestProcess:
    """A program that runs in the guest."""

    def __init__(self, agent, command, pid):
        self.agent = agent
        self.command = command
        self.pid = pid
        self.result = None

    def poll(self):
        """Its GuestResult, or None while it runs."""
        if self.result is None:
            answer = self.agent.call("guest-exec-status", pid=self.pid)
            if answer["exited"]:
                # As a shell counts: a program that a signal ended has 128 and the signal's number.
                rc = answer.get("exitcode", 128 + answer.get("signal", 0))
                self.result = GuestResult(rc, _text(answer, "out-data"), _text(answer, "err-data"))
        return self.result

    def wait(self, timeout=ANSWER):
        """The pauses grow, so that asking does not disturb what is measured."""
        deadline = time.monotonic() + timeout
        pause = FIRST_POLL
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise GuestError(f"In the guest, not done after {timeout:g} s (ended): {self.command}")
            time.sleep(pause)
            pause = min(LAST_POLL, pause * 1.5)
        return self.result

    def kill(self, number=9):
        """End it with all that it started (the shell that runs the command is their parent)."""
        script = ("all() { local c; echo $1; for c in $(cat /proc/$1/task/*/children); do all $c; done; }; "
                  f"kill -{number} $(all {self.pid} 2>/dev/null); true")
        try:
            self.agent.run(script, timeout=30, check=False)
        except (GuestError, QmpError):
            pass
