# SPDX-License-Identifier: GPL-2.0-or-later
"""svioctl as people type it, against a board behind its socket (svio-board-host, whose guests are fake)."""
import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import paths  # noqa: E402 (the path comes first)

SVIOCTL = paths.BUILD / "hv-interface" / "svioctl"
HOST = paths.BUILD / "tests" / "unit" / "svio-board-host"
PATIENCE = 60  # only ends a test that hangs


class Host:
    def __init__(self, path, vfs):
        self.process = subprocess.Popen([HOST, path, str(vfs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.expect("ready")

    def expect(self, word):
        line = self.process.stdout.readline()
        if line != word + "\n":
            raise AssertionError(f"svio-board-host said {line!r}, not {word}")

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        self.expect("ok")

    def end(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it was killed
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.stdout.close()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        return status


class SvioctlTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        self.socket = os.path.join(folder.name, "m")
        self.host = Host(self.socket, 4)
        self.addCleanup(self.host.end)

    def run_it(self, *words, env=None, status=0, via="env"):
        environment = {"PATH": "/usr/bin:/bin", **({"SVIO_SOCKET": self.socket} if via == "env" else {}),
                       **(env or {})}
        done = subprocess.run([SVIOCTL, *map(str, words)], env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout}{done.stderr}")
        if status:
            self.assertEqual(done.stdout, "")
        else:
            self.assertEqual(done.stderr, "")
        return done.stderr if status else done.stdout

    def json(self, *words):
        return json.loads(self.run_it("--json", *words))

    def shown(self, vif):
        """{name: value} of what `vif show` prints."""
        return dict(line.split(None, 1) for line in self.run_it("vif", "show", vif).splitlines())

    # --- reading

    def test_list(self):
        self.host.tell("enable", 2)
        lines = self.run_it("vif", "list").splitlines()
        self.assertEqual(lines[0].split(), ["SLOT", "ID", "NAME", "MAC", "VLAN", "LINK", "DRIVER", "MIN",
                                            "MAX", "WEIGHT", "CORE"])
        self.assertEqual(lines[1].split()[:8], ["0", "1", "-", "52:54:00:12:34:56", "-", "up", "-", "-"])
        self.assertEqual(lines[2].split()[:4], ["2", "2", "-", "52:56:00:12:34:56"])
        self.assertEqual(len(lines), 3)
        answer = self.json("vif", "list")
        self.assertEqual(answer["status"], "OK")
        self.assertEqual([vif["slot"] for vif in answer["vifs"]], [0, 2])

    def test_names_of_vifs(self):
        self.run_it("vif", "create", "--slot", 1, "--name", "guest one")
        for name in ("1", "id:2", "name:guest one", "guest one"):
            self.assertEqual(self.shown(name)["id"], "2", name)
        self.assertEqual(self.shown("pf")["id"], "1")
        self.assertIn("NOT_FOUND", self.run_it("vif", "show", "guest two", status=1))
        self.assertIn("NOT_FOUND", self.run_it("vif", "show", "id:18446744073709551615", status=1))
        self.assertIn("no number", self.run_it("vif", "show", "id:x", status=2))
        self.assertIn("no number", self.run_it("vif", "show", "99999999999", status=2))
        self.assertIn("no number", self.run_it("vif", "show", "id:18446744073709551616", status=2))

    # --- changing

    def test_every_setting(self):
        words = ["--mac", "02:00:00:00:00:07", "--vlan", "7:3", "--trust", "on", "--spoof-check", "off",
                 "--promisc", "off", "--multicast", "off", "--guest-tagging", "off", "--link", "down",
                 "--queue-pairs", "1", "--queue-size", "64", "--min-rate", "10", "--max-rate", "100",
                 "--weight", "5", "--core", "1", "--name", "seven", "--qos-limit", "1:2:3",
                 "--neighbours", "none"]
        wanted = {"mac": "02:00:00:00:00:07", "permanent-mac": "02:00:00:00:00:07", "vlan": "7:3",
                  "trust": "on", "spoof-check": "off", "promisc": "off", "multicast": "off",
                  "guest-tagging": "off",
                  "link": "down, is down", "queue-pairs": "1", "queue-size": "64", "min-rate": "10",
                  "max-rate": "100", "weight": "5", "core": "1", "name": "seven", "qos-limit": "1:2:3",
                  "neighbours": "none", "slot": "3", "driver": "-", "automatic": "no", "id": "2"}
        self.run_it("vif", "create", "--slot", "3", *words)
        self.assertEqual(self.shown("3"), wanted)
        self.run_it("vif", "destroy", "3")
        self.run_it("vif", "create", "--slot", "3")
        self.run_it("vif", "set", "3", *words)
        self.assertEqual(self.shown("3"), {**wanted, "id": "3"})
        # And back, which leaves no priority behind.
        self.run_it("vif", "set", "3", "--vlan", "9")
        self.assertEqual(self.shown("3")["vlan"], "9")
        self.run_it("vif", "set", "3", "--vlan", "0", "--core", "auto", "--max-rate", "0",
                    "--neighbours", "4")
        shown = self.shown("3")
        self.assertEqual(shown["neighbours"], "group 4")
        self.assertEqual((shown["vlan"], shown["max-rate"]), ("-", "-"))
        self.assertTrue(shown["core"].startswith("auto("))

    def test_unbound_bound_and_unbound_again(self):
        self.assertIsNone(self.json("vif", "create", "--name", "x")["vif"]["slot"])
        self.assertEqual(self.run_it("vif", "list").splitlines()[2].split()[0], "-")
        self.assertEqual(self.json("vif", "bind", "x", "4")["vif"]["slot"], 4)
        self.assertIn("STATE", self.run_it("vif", "bind", "x", "3", status=1))
        self.assertEqual(self.run_it("vif", "unbind", "4"), "")
        self.assertIn("STATE", self.run_it("vif", "stats", "x", status=1))
        self.assertEqual(self.run_it("vif", "destroy", "x"), "")
        self.assertEqual(len(self.json("vif", "list")["vifs"]), 1)

    def test_refusals_are_told_with_their_status(self):
        self.run_it("vif", "create", "--slot", "1")
        for status, words in (("EXISTS", ("vif", "create", "--slot", "1")),
                              ("NOT_FOUND", ("vif", "create", "--slot", "5")),
                              ("DENIED", ("vif", "destroy", "pf")),
                              ("INVALID", ("vif", "set", "1", "--mac", "01:00:00:00:00:01")),
                              ("INVALID", ("vif", "set", "1", "--mac", "\udcff\udcfe")),
                              ("INVALID", ("vif", "set", "1", "--vlan", "4095")),
                              ("INVALID", ("vif", "set", "1", "--weight", "1001")),
                              ("INVALID", ("vif", "set", "1", "--name", "x" * 32)),
                              ("EXISTS", ("vif", "set", "1", "--mac", "52:54:00:12:34:56")),
                              ("NOT_FOUND", ("core", "map", "1", "9")),
                              ("NOT_FOUND", ("core", "map", "2", "0"))):
            said = self.run_it(*words, status=1)
            self.assertTrue(said.startswith(f"svioctl: {status}: "), said)
            self.assertEqual(said.count("\n"), 1)

    def test_wrong_words_never_reach_the_card(self):
        for words in ((), ("vif",), ("core",), ("vif", "eat"), ("vif", "show"), ("vif", "set"),
                      ("vif", "list", "extra"), ("vif", "set", "1", "--trust", "maybe"),
                      ("vif", "set", "1", "--weight", "-1"), ("vif", "set", "1", "--weight", "many"),
                      ("vif", "set", "1", "--vlan", "1:2:3"), ("vif", "set", "1", "--qos-limit", "1:2"),
                      ("vif", "set", "1", "--link", "sideways"),
                      ("vif", "set", "1", "--neighbours", "all"), ("vif", "create", "--slot", "x"),
                      ("core", "map", "1"), ("core", "map", "1", "first"), ("vif", "bind", "1"),
                      ("vif", "watch", "--interval", "0"), ("--frobnicate",)):
            self.run_it(*words, status=2)
        self.assertEqual(len(self.json("vif", "list")["vifs"]), 1)

    def test_help_and_version(self):
        self.assertIn("vif", self.run_it("--help", via=None))
        said = self.run_it("vif", "set", "--help", via=None)
        for setting in ("--mac", "--vlan", "--spoof-check", "--qos-limit"):
            self.assertIn(setting, said)
        self.assertRegex(self.run_it("--version", via=None), r"^\d+\.\d+\.\d+\n$")

    # --- counters and cores

    def test_stats(self):
        self.host.tell("enable", 1)
        self.host.tell("count", 1, "tx_frames", 123)
        self.assertEqual(self.run_it("vif", "stats", "1").split(), ["tx_frames", "123"])
        everything = self.run_it("vif", "stats", "--all", "1")
        self.assertIn("queue 1 receive full", everything)
        self.assertEqual(self.json("vif", "stats", "1")["counters"]["tx_frames"], 123)

    def test_port(self):
        self.assertRegex(self.run_it("port", "stats"), r"^unclaimed +0\n$")
        self.assertEqual(self.json("port", "stats")["counters"], {"unclaimed": 0})
        self.run_it("port", status=2)

    def test_watch(self):
        self.host.tell("enable", 1)
        lines = self.run_it("--json", "vif", "watch", "--count", "3", "--interval", "0.01").splitlines()
        self.assertEqual([[vif["slot"] for vif in json.loads(line)] for line in lines], [[0, 1]] * 3)
        lines = self.run_it("vif", "watch", "1", "--count", "2", "--interval", "0.01").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[1].split()[:4], ["1", "2", "-", "0"])
        # Of all VIFs and of the cores, by the short name of the verb.
        lines = self.run_it("watch", "--count", "1", "--interval", "0.01").splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["SLOT", "0", "1", "CORE", "core0", "core1"])
        self.assertEqual(lines[0].split()[3:], ["TX-FRAMES/S", "TX-MBIT/S", "RX-FRAMES/S", "RX-MBIT/S",
                                                "DROPS/S"])
        self.assertEqual(lines[3].split(), ["CORE", "QUEUES", "LOAD-%", "SLEEPS/S"])

    def test_watch_on_a_terminal(self):
        """The table is drawn anew in its place; Ctrl-C ends it well."""
        own, terminal = pty.openpty()
        try:
            watch = subprocess.Popen([SVIOCTL, "-s", self.socket, "watch", "-i", "0.02"], stdin=terminal,
                                     stdout=terminal, start_new_session=True,
                                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
            said = b""
            while said.count(b"\x1b[H\x1b[2J") < 4:
                said += os.read(own, 65536)
            self.assertIn(b"LOAD-%", said)
            os.write(own, b"\x03")
            while watch.poll() is None:
                if select.select([own], [], [], 0.05)[0]:
                    os.read(own, 65536)
            self.assertEqual(watch.returncode, 0)
        finally:
            os.close(own)
            os.close(terminal)

    def test_watch_sees_what_passes(self):
        self.host.tell("enable", 1)
        watch = subprocess.Popen([SVIOCTL, "-s", self.socket, "vif", "watch", "-i", "0.05"], text=True,
                                 stdout=subprocess.PIPE)
        try:
            deadline, seen = time.monotonic() + PATIENCE, False
            while not seen and time.monotonic() < deadline:
                self.host.tell("count", 1, "rx_frames", 1000)
                words = watch.stdout.readline().split()
                seen = words[0] == "1" and int(words[5]) > 0
            self.assertTrue(seen)
        finally:
            watch.send_signal(signal.SIGINT)
            self.assertEqual(watch.wait(PATIENCE), 0)
            watch.stdout.close()

    def test_cores(self):
        self.host.tell("enable", 1)
        lines = self.run_it("core", "list").splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["CORE", "0", "1"])
        self.assertEqual(sum(int(line.split()[1]) for line in lines[1:]), 4)
        self.assertEqual(self.json("core", "map", "1", "1")["vif"]["core"], 1)
        self.assertEqual(self.shown("1")["core"], "1")

    # --- the socket

    def test_no_card(self):
        self.assertIn("--socket", self.run_it("vif", "list", via=None, status=2))
        self.assertIn("No such file", self.run_it("-s", self.socket + "x", "vif", "list", status=3))
        self.assertIn("1 to 107 bytes", self.run_it("-s", "x" * 200, "vif", "list", status=3))
        self.assertEqual(len(self.run_it("vif", "list", "-s", self.socket, via=None).splitlines()), 2)
        self.assertEqual(self.host.end(), 0)
        self.assertIn("No such file", self.run_it("vif", "list", status=3))

    def test_what_is_no_card(self):
        path = self.socket + "2"
        for said in (b"", b"hello\n", b"[]\n", b'{"status":"OK"}\n', b'{"status":7}\n',
                     b'{"status":"OK","vifs":[{}]}\n'):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()
                client = subprocess.Popen([SVIOCTL, "-s", path, "vif", "list"], stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, text=True)
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(said)
                out, err = client.communicate(timeout=PATIENCE)
            os.unlink(path)
            self.assertEqual((client.returncode, out), (3, ""), said)
            self.assertEqual(err.count("\n"), 1, err)

    def test_killed_in_the_middle_of_a_command(self):
        self.host.tell("hold")
        client = subprocess.Popen([SVIOCTL, "-s", self.socket, "vif", "create", "--slot", "1"])
        with socket.socket(socket.AF_UNIX) as other:
            client.kill()
            client.wait(PATIENCE)
            other.connect(self.socket)
            other.sendall(b'{"op":"vif-list"}\n')
            self.host.tell("release")
            other.settimeout(PATIENCE)
            self.assertEqual(json.loads(other.makefile().readline())["status"], "OK")
        # Read whole or not: the card is well, and the slot has a VIF or none.
        vifs = self.json("vif", "list")["vifs"]
        self.assertIn([vif["slot"] for vif in vifs], ([0], [0, 1]))
        self.run_it("vif", "create", "--slot", "2")

    def test_a_card_that_goes_away_in_the_middle_of_a_command(self):
        self.host.tell("hold")
        client = subprocess.Popen([SVIOCTL, "-s", self.socket, "vif", "list"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self.socket)
            self.host.process.kill()
            out, err = client.communicate(timeout=PATIENCE)
        self.assertEqual((client.returncode, out), (3, ""))
        self.assertIn("svioctl: ", err)


class CompletionTest(unittest.TestCase):
    """The completion script in a real bash, without the package bash-completion."""

    def complete(self, *words):
        script = f"""
            _init_completion() {{ words=("${{COMP_WORDS[@]}}"); cword=$COMP_CWORD; cur=${{words[cword]}}
                prev=${{words[cword-1]}}; }}
            _filedir() {{ COMPREPLY=(FILES); }}
            __ltrim_colon_completions() {{ :; }}
            source {paths.REPO}/hv-interface/svioctl.bash
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _svioctl
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", script, "bash", "svioctl", *words], capture_output=True,
                              env={"PATH": f"{SVIOCTL.parent}:/usr/bin:/bin"}, text=True, timeout=PATIENCE,
                              check=True)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_verbs_settings_and_values(self):
        self.assertEqual(self.complete("v"), ["vif"])
        self.assertEqual(self.complete("vif", "s"), ["show", "set", "stats"])
        self.assertEqual(self.complete("--socket", "/x", "core", ""),
                         ["--socket", "--json", "--help", "list", "map"])
        self.assertEqual(self.complete("vif", "set", "3", "--sp"), ["--spoof-check"])
        self.assertEqual(self.complete("vif", "set", "3", "--trust", "o"), ["on", "off"])
        self.assertEqual(self.complete("vif", "set", "3", "--link", "d"), ["down"])
        self.assertEqual(self.complete("-s", ""), ["FILES"])
        self.assertEqual(self.complete("vif", "create", "--mac", ""), [])

    def test_vifs_of_the_card(self):
        with tempfile.TemporaryDirectory(prefix="svio-unit-") as folder:
            host = Host(os.path.join(folder, "m"), 2)
            try:
                host.tell("enable", 2)
                self.assertEqual(self.complete("-s", os.path.join(folder, "m"), "vif", "show", "2"), ["2"])
                self.assertEqual(self.complete("-s", os.path.join(folder, "m"), "vif", "show", "p"), ["pf"])
            finally:
                host.end()

    def test_every_option_that_is_offered_is_one(self):
        for verb in ("create", "set"):
            said = subprocess.run([SVIOCTL, "vif", verb, "--help"], capture_output=True, text=True,
                                  check=True).stdout
            for option in self.complete("vif", verb, "--"):
                self.assertIn(option, said, verb)


if __name__ == "__main__":
    unittest.main()
