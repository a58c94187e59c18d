# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of "svio report" from stored raw data, in a real browser (headless Chromium, no network)."""
import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from svio_tool import cli, setup

DATA = Path(__file__).resolve().parents[1] / "data"
RAW, VMS = DATA / "bench.json", DATA / "vms.json"
PLOTS = {"p50", "tail", "loaded", "tx", "rx", "both", "packets", "tcp-tx", "tcp-rx", "cpu-tx", "cpu-rx",
         "stages", "guests-p50-vms", "guests-tcp-vms", "guests-rate-vms"}
FOCUSED = "document.activeElement.tagName + ' ' + (document.activeElement.getAttribute('aria-label') || " \
          "document.activeElement.getAttribute('href') || '')"


def setUpModule():
    setup.ensure(["packages-report", "packages-browser"])


class Browser:
    """Chromium over its debugging pipe: JSON messages that end with a zero byte, on descriptors 3 and 4."""

    def __init__(self, page):
        self.folder = tempfile.mkdtemp(prefix="svio-browser-")
        theirs_in, self.out = os.pipe()
        self.back, theirs_out = os.pipe()
        # Which descriptors those are is up to the shell; none of ours may be in the way.
        words = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", words, "bash", "chromium", "--headless", "--no-sandbox", "--disable-gpu",
             "--no-first-run", f"--user-data-dir={self.folder}", "--remote-debugging-pipe",
             "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs_in, theirs_out),
            start_new_session=True)
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.rest, self.events, self.session = 0, b"", [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=page)
        self.wait_for("Page.loadEventFired")

    def receive(self):
        while b"\0" not in self.rest:
            data = os.read(self.back, 1 << 16)
            if not data:
                raise AssertionError("Chromium ended")
            self.rest += data
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def wait_for(self, method):
        while not any(event["method"] == method for event in self.events):
            self.events.append(self.receive())

    def ask(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press_tab(self):
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self.session = None
            self.ask("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.back)
        shutil.rmtree(self.folder, ignore_errors=True)


class TestReport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="svio-report-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["report", str(VMS), str(RAW), "--out", str(cls.folder)]) == 0
        cls.raw, cls.vms = json.loads(RAW.read_text()), json.loads(VMS.read_text())
        cls.text = (cls.folder / "index.html").read_text()

    def test_csv(self):
        with open(self.folder / "figures.csv") as handle:
            rows = list(csv.DictReader(handle))
        mine = [cell["p50_us"] for cell in self.raw["cells"]["guest"]
                if (cell["approach"], cell["kind"], cell["size"]) == ("virtio", "rtt", 64)]
        found = [row for row in rows if (row["approach"], row["load"], row["figure"]) ==
                 ("virtio", "rtt_64", "p50_us")]
        self.assertEqual(len(found), 1)
        self.assertTrue(min(mine) <= float(found[0]["value"]) <= max(mine))
        self.assertEqual({row["approach"] for row in rows},
                         {cell["approach"] for cells in self.raw["cells"].values() for cell in cells}
                         | {cell["way"] for cell in self.vms["cells"]["trip"]})
        eight = {row["figure"]: row for row in rows
                 if row["approach"] == "svio" and row["load"].endswith("_8")}
        mine = [cell["per_s"] for cell in self.vms["cells"]["rate"]
                if (cell["way"], cell["vms"]) == ("svio", 8)]
        self.assertEqual([float(eight["per_s"][name]) for name in ("low", "high")], [min(mine), max(mine)])

    def test_self_contained(self):
        self.assertEqual(re.findall(r'(?:src|href)="(?!#|data:|figures\.csv)[^"]*"', self.text), [])
        self.assertNotIn("@import", self.text)
        ids = re.findall(r'\bid="([^"]+)"', self.text)
        self.assertEqual(sorted({name for name in ids if ids.count(name) > 1}), [])

    def test_in_a_browser(self):
        browser = Browser(f"file://{self.folder}/index.html")
        try:
            self.check_plots(browser)
            self.check_keyboard(browser)
            self.check_widths(browser)
            wrong = [event for event in browser.events if event["method"] == "Runtime.exceptionThrown" or (
                event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")
                and event["params"].get("entry", event["params"]).get("level", "error") == "error")]
            self.assertEqual(wrong, [])
            asked = {event["params"]["request"]["url"].split(":")[0] for event in browser.events
                     if event["method"] == "Network.requestWillBeSent"}
            self.assertLessEqual(asked, {"file", "data"})
        finally:
            browser.close()

    def check_plots(self, browser):
        """Each has a name for those who do not see it, and marks that take up room on the screen."""
        found = browser.value("""[...document.querySelectorAll('svg')].map(svg => [
            svg.querySelector('[id]').id, svg.getAttribute('aria-label') || '',
            [...svg.querySelectorAll('path')].filter(path => {
                const box = path.getBoundingClientRect();
                return box.width > 1 || box.height > 1; }).length])""")
        names = {name.rsplit("-figure", 1)[0]: (label, marks) for name, label, marks in found}
        journeys = {f"journey-{key}" for key in {
            cell["approach"] for cells in self.raw["cells"].values() for cell in cells}}
        self.assertEqual(set(names), PLOTS | journeys)
        for name, (label, marks) in names.items():
            self.assertGreater(len(label), 10, name)
            self.assertGreater(marks, 5, name)

    def check_keyboard(self, browser):
        """Tab goes from the skip link through every table to the QEMU lines, in the order of the page."""
        wanted = browser.value("[...document.querySelectorAll('a, [tabindex]')].length")
        seen = []
        for _ in range(wanted):
            browser.press_tab()
            seen.append(browser.value(FOCUSED))
        self.assertEqual(seen[0], "A #main")
        order = browser.value("[...document.querySelectorAll('a, [tabindex]')].map(one => one.tagName + "
                              "' ' + (one.getAttribute('aria-label') || one.getAttribute('href') || ''))")
        self.assertEqual(seen, order)
        self.assertEqual(browser.value("[...document.querySelectorAll('th:not([scope])')].length"), 0)

    def check_widths(self, browser):
        """On a phone nothing but the tables' own regions is wider than the screen."""
        browser.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2,
                    mobile=True)
        self.assertLessEqual(browser.value("document.documentElement.scrollWidth"), 360)


class TestBadInput(unittest.TestCase):
    def test_sentences(self):
        with tempfile.TemporaryDirectory() as folder:
            for text, says in (("", "not JSON"), ("[]", "no rounds of svio bench"),
                               ('{"measurement": "bench", "cells": {}}', "no rounds"),
                               (VMS.read_text(), "give its file, too"),
                               ('{"ways": {}, "cells": {"trip": [{}]}}', "give its file, too")):
                path, error = Path(folder) / "raw.json", io.StringIO()
                path.write_text(text)
                with contextlib.redirect_stderr(error):
                    self.assertEqual(cli.main(["report", str(path), "--out", f"{folder}/out"]), 1)
                self.assertIn(says, error.getvalue())
                self.assertFalse(os.path.exists(f"{folder}/out"))


if __name__ == "__main__":
    unittest.main()
