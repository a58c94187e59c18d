# SPDX-License-Identifier: GPL-2.0-or-later
"""svio_tool: what scripts/svio, the virtual machine tests and the demo are made of."""
