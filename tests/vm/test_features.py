# SPDX-License-Identifier: GPL-2.0-or-later
"""ethtool, XDP and faults. XDP with the older kernel is in test_basic.py."""
from features import Coalesce, Ethtool, Faults, FeatureVm, Rings, SelfTest, Xdp
from svio_tool.worker import long


class TestFeatures(Ethtool, Coalesce, Rings, SelfTest, Xdp, Faults, FeatureVm):
    NAME = "features"


@long
class TestFeatures61(Ethtool, Coalesce, Rings, SelfTest, Xdp, Faults, FeatureVm):
    """The older kernel, and two vCPUs."""
    NAME, KERNEL, SMP = "features-6.1", "6.1", 2
