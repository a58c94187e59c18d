# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of "python3 -m svio_tool"; scripts/svio calls it."""
import sys

from svio_tool.cli import main

sys.exit(main())
