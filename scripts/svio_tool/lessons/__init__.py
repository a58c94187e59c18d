# SPDX-License-Identifier: GPL-2.0-or-later
"""Guided demonstrations for a class, in the order in which they build on each other."""
from svio_tool.lessons import direct, emulation, hostile, polling, selfvirt, signals, split

LESSONS = {module.LESSON.name: module.LESSON for module in
           (emulation, split, direct, selfvirt, polling, signals, hostile)}
