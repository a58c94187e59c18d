# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "lesson" without machines: what it lists, what it says of a run, and that the texts agree."""
import contextlib
import io
import json
import re
import shlex
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

from svio_tool import cli, lesson
from svio_tool.lessons import LESSONS
from svio_tool.lessons.frame import Context, Lesson, Outcome
from svio_tool.ui import SvioError


def said(call, *words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        call(*words)
    return out.getvalue()


def outcome(held):
    found = Outcome(["NIC", "us"], [["one", "3"]], ["A note."], {"one": 3})
    found.expect(True, "This holds.")
    found.expect(held, "That may hold.")
    return found


def toy(held):
    return Lesson("toy", "A toy", "What?", 3, (), ("scripts/svio demo",), lambda context: outcome(held))


class TestLesson(unittest.TestCase):
    def test_seven_in_the_order_of_the_index(self):
        index = (lesson.DOCS / "README.md").read_text()
        self.assertEqual(re.findall(r"^\| \[([\w-]+)\]\(\1\.md\) \| (.*) \|$", index, re.M),
                         [(one.name, one.title) for one in LESSONS.values()])
        self.assertEqual(len(LESSONS), 7)
        self.assertEqual({path.stem for path in lesson.DOCS.glob("*.md")}, {"README", *LESSONS})

    def test_texts_ask_the_same(self):
        for name, one in LESSONS.items():
            with self.subTest(name):
                text = (lesson.DOCS / f"{name}.md").read_text()
                self.assertTrue(text.startswith(f"# {one.title}\n\n    scripts/svio lesson {name}\n\n"
                                                f"**{one.question}**\n"))
                exercises = text.split("## Exercises\n")[1]
                self.assertGreaterEqual(len(re.findall(r"^\d\. ", exercises, re.M)), 3)
                self.assertEqual(len(re.findall(r"^\d\. ", exercises, re.M)),
                                 len(re.findall(r"\*[A-Z`][^*]*\.\*$", exercises, re.M)),
                                 "each exercise says what one should see")

    def test_commands_are_commands(self):
        """What a lesson says to type, the command line takes."""
        parser = cli._parser()
        for one in LESSONS.values():
            for text in one.repeat:
                for command in re.sub(r"\s{2,}\(.*\)$", "", text).split(";"):
                    words = shlex.split(command)
                    if words[0] == "scripts/svio":
                        with self.subTest(command), contextlib.redirect_stderr(io.StringIO()):
                            self.assertEqual(parser.parse_args(words[1:]).verb, words[1])

    def test_list_and_unknown_name(self):
        text = said(lesson.main, types.SimpleNamespace(name="list"))
        for name, one in LESSONS.items():
            self.assertIn(f"  {name} ", text)
            self.assertIn(one.question, text)
        with self.assertRaisesRegex(SvioError, "no lesson of-nothing; there are: emulation, "):
            lesson.chosen("of-nothing")
        self.assertEqual(lesson.chosen("all"), list(LESSONS.values()))

    def teach(self, held):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(lesson.setup, "ensure"):
            path = Path(folder) / "out.json"
            result = {"lessons": {}}
            text = said(lesson.run, [toy(held)], True, False, lesson.Writer(str(path)), result)
            self.assertEqual(json.loads(path.read_text()), result)
        return text, result["lessons"]["toy"]

    def test_what_did_not_happen_is_said(self):
        text, found = self.teach(True)
        self.assertNotIn("NOT", text)
        self.assertEqual(found["figures"], {"one": 3})
        text, found = self.teach(False)
        self.assertIn("NOT what this lesson expects, in this run:\n* That may hold.", text)
        self.assertNotIn("NOT what this lesson expects, in this run:\n* This", text)
        self.assertIn("not all was as the lesson expects (toy)", text)
        self.assertEqual([one["held"] for one in found["expectations"]], [True, False])

    def test_pause_waits_for_enter(self):
        reader = mock.Mock()
        with mock.patch.object(lesson.sys, "stdin", reader):
            said(lesson.ask, toy(True), True)
            reader.readline.assert_called_once()
            said(lesson.ask, toy(True), False)
            reader.readline.assert_called_once()

    def test_xen_has_the_guests_that_the_run_needs(self):
        self.assertEqual(Context(lessons=[LESSONS["split-driver"]]).xen_paths, ("split",))
        self.assertEqual(Context(lessons=list(LESSONS.values())).xen_paths, ("split", "direct"))
        self.assertEqual(Context(lessons=[LESSONS["polling"]]).xen_paths, ())


if __name__ == "__main__":
    unittest.main()
