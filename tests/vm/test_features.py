# SPDX-License-Identifier: GPL-2.0-or-later
"""ethtool, XDP and faults, in one VM for each kernel."""
from features import Coalesce, Ethtool, Faults, FeatureVm, Rings, SelfTest, Xdp
from svio_tool.worker import long


class TestFeatures(Ethtool, Coalesce, Rings, SelfTest, Xdp, Faults, FeatureVm):
    NAME = "features"


class TestXdp61(Xdp, FeatureVm):
    NAME, KERNEL = "features-6.1", "6.1"


@long
class TestFeatures61(Ethtool, Coalesce, Rings, SelfTest, Faults, FeatureVm):
    NAME, KERNEL, SMP = "features-6.1-all", "6.1", 2
