# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own tests of network drivers (tools/testing/selftests/drivers/net), for the guest.

They come from Debian's source package of the guest's kernel, with the programs that they want, as one more
archive after the guest's image (guest_image.py). The programs are Debian 13's: ethtool of Debian 12 is older
than the tests, and the later C library serves the image's other programs as well.
"""
import functools
import os
import re
import shutil
import stat
from pathlib import Path

from svio_tool import apt, build, guest_image, host
from svio_tool.debug_kernel import SOURCE, unpack_source
from svio_tool.guest_image import GUEST_IMAGE, unpacked_packages
from svio_tool.paths import JUNK
from svio_tool.steps import Step
from svio_tool.ui import SvioError

ARCHIVE = GUEST_IMAGE / "selftests.cpio"
# Where they lie in the guest, as in the kernel's tree.
PLACE = "usr/src/linux"
DRIVERS_NET = f"/{PLACE}/tools/testing/selftests/drivers/net"
# What of the tree they use (drivers/net/README.rst, and what the scripts load). A part stands for all whose
# names begin so: net/lib is a folder and a script.
PARTS = ("tools/testing/selftests/drivers/net", "tools/testing/selftests/net/lib",
         "tools/testing/selftests/net/net_helper.sh", "tools/testing/selftests/net/forwarding/lib.sh",
         "tools/testing/selftests/net/forwarding/tc_common.sh",
         "tools/testing/selftests/net/forwarding/ipip_lib.sh", "tools/testing/selftests/kselftest",
         "tools/net/ynl/lib", "Documentation/netlink/specs", "include/uapi/linux/ethtool.h")
PACKAGES = ("python3", "python3-yaml", "jq", "netsniff-ng", "coreutils", "grep", "sed", "gawk", "procps",
            "ethtool", "iproute2", "lldpad")
# The guest's image has its own shell and users.
UNUSED = re.compile(r"^(perl|debconf|adduser|passwd|usrmerge|base-|bash|dash|dpkg|tar|"
                    r"init-system-helpers|media-types|tzdata|libgeoip|geoip)")


class SelftestsStep(Step):
    name = "selftests"
    title = "Linux's selftests of network drivers"
    needs = ("packages",)

    def inputs(self):
        return ["layout 1", host.codename(), " ".join(PARTS), " ".join(PACKAGES), Path(__file__)]

    def outputs(self):
        return [ARCHIVE]

    def run(self, log):
        tree = JUNK / "selftests-tree"
        shutil.rmtree(tree, ignore_errors=True)
        unpack_source(tree, log, PARTS)
        if not (tree / "tools/testing/selftests/drivers/net/README.rst").exists():
            raise SvioError(f"{SOURCE} has no selftests of network drivers where they are looked for.")
        _compile(tree, log)
        GUEST_IMAGE.mkdir(parents=True, exist_ok=True)
        with unpacked_packages("selftests", PACKAGES, UNUSED, log, source=apt.trixie_apt()) as root:
            guest_image.write(ARCHIVE, functools.partial(_content, root, tree))
        shutil.rmtree(tree)


def _compile(tree, log):
    """The one program among them. Linked statically: the guest's C library may be older than the host's."""
    base = tree / "tools/testing/selftests"
    log.run(["gcc", "-O2", "-static", "-I", base, "-o", base / "net/lib/csum", base / "net/lib/csum.c"],
            "The selftests' program csum does not compile", env=build.environment())


def _content(root, tree, archive):
    for path in sorted(tree.rglob("*")):
        _add(archive, f"{PLACE}/{path.relative_to(tree)}", path)
    # One of them reads there what link modes there are.
    archive.link("usr/include/linux/ethtool.h", f"/{PLACE}/include/uapi/linux/ethtool.h")
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if inside.parts[0] in ("usr", "bin", "sbin", "lib", "lib64"):
            _add(archive, str(inside if inside.parts[0] == "usr" else "usr" / inside), path)


def _add(archive, name, path):
    """Folders come with what is in them; /bin and its like are links in the guest."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        archive.link(name, os.readlink(path))
    elif stat.S_ISREG(mode):
        archive.file(name, path)
