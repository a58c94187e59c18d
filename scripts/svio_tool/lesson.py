# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "lesson": a question, the real thing, and the measured answer; docs/lessons/ has the text."""
import argparse
import sys
import textwrap
import time

from svio_tool import paths, setup, ui
from svio_tool.demo import Writer, figures, table
from svio_tool.lessons import LESSONS
from svio_tool.lessons.frame import Context
from svio_tool.ui import SvioError

WIDTH = 100
DOCS = paths.REPO / "docs" / "lessons"


def add_arguments(parser):
    parser.add_argument("name", nargs="?", default="list", metavar="list|NAME|all",
                        help="what to show: " + ", ".join(LESSONS) + "; all of them, one after the "
                                                                     "other; or the list (default)")
    parser.add_argument("--short", action="store_true", help="one round and short runs, to see that it works")
    parser.add_argument("--pause", action=argparse.BooleanOptionalAction, default=None,
                        help="wait for Enter between question and answer (default: on a terminal)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, - for standard output")


def wrapped(text, indent=""):
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent))


def listing():
    ui.say("Lessons, in the order in which they build on each other (scripts/svio lesson NAME):\n")
    for name, lesson in LESSONS.items():
        ui.say(f"  {name:20} {lesson.title} (about {lesson.minutes} minutes)")
        ui.say(f"  {'':20} {lesson.question}")
    ui.say(f"\nThe same as text, with exercises: {paths.shown(DOCS)}/")


def chosen(name):
    if name == "all":
        return list(LESSONS.values())
    if name not in LESSONS:
        raise SvioError(f"There is no lesson {name}; there are: {', '.join(LESSONS)}.")
    return [LESSONS[name]]


def ask(lesson, pause):
    ui.say(f"\n=== {lesson.title} ===\n")
    ui.say(wrapped(lesson.question))
    if pause:
        ui.say("\nWhat do you expect? Enter shows what this machine says.")
        sys.stdin.readline()


def answer(lesson, outcome):
    ui.say()
    table(outcome.head, outcome.rows)
    ui.say()
    for one in outcome.expectations:
        if not one["held"]:
            ui.say("  NOT what this lesson expects, in this run:")
        ui.say(wrapped(one["text"], "* "))
    for note in outcome.notes:
        ui.say("\n" + wrapped(note))
    ui.say("\nTo see it outside of the lesson:")
    for command in lesson.repeat:
        ui.say(f"  {command}")
    ui.say(f"Exercises: {paths.shown(DOCS / (lesson.name + '.md'))}")


def teach(lesson, context, pause):
    """The lesson's part of the JSON."""
    ask(lesson, pause)
    begin = time.monotonic()
    setup.ensure(setup.for_vm(paths.DEFAULT_KERNEL) + list(lesson.needs))
    outcome = lesson.run(context)
    answer(lesson, outcome)
    return {"title": lesson.title, "question": lesson.question, "seconds": time.monotonic() - begin,
            "expectations": outcome.expectations, "figures": outcome.figures}


def run(lessons, short, pause, writer, result):
    with Context(short, lessons) as context:
        for lesson in lessons:
            result["lessons"][lesson.name] = teach(lesson, context, pause)
            writer.write(result)
    odd = [name for name, one in result["lessons"].items()
           if not all(expectation["held"] for expectation in one["expectations"])]
    if odd:
        ui.say(f"\nIn this run not all was as the lesson expects ({', '.join(odd)}): figures of a busy "
               "host wander; repeat it.")


def main(args):
    if args.name == "list":
        listing()
        return 0
    lessons = chosen(args.name)
    pause = sys.stdin.isatty() if args.pause is None else args.pause
    result = {"measurement": "lesson", "short": args.short, "lessons": {}}
    with figures(args.json, result):
        writer = Writer(args.json)
        writer.write(result)        # says now that a file cannot be written
        run(lessons, args.short, pause, writer, result)
    return 0
