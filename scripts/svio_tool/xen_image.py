# SPDX-License-Identifier: GPL-2.0-or-later
"""The Xen machine's files: Debian's hypervisor, dom0 and its guests, of packages that are never installed.

dom0 is the test VM's image with Xen's tools in one more archive; it carries kernel and archive of its guests.
"""
import functools
import gzip
import re
import shutil

from svio_tool import apt, guest_image, host, kernels
from svio_tool.guest_image import Tree
from svio_tool.paths import BUILD, DEFAULT_KERNEL, JUNK, REPO, driver_module
from svio_tool.steps import Step
from svio_tool.ui import SvioError

XEN = BUILD / "xen"
HYPERVISOR = XEN / "xen"
TOOLS = XEN / "tools.cpio"
GUEST = XEN / "guest.cpio"
DOM0 = XEN / "dom0.cpio"
VERSION = XEN / "version"
SVIOCTL = BUILD / "hv-interface" / "svioctl"

HERE = guest_image.HERE / "xen"
HOTPLUG = REPO / "hv-interface" / "xen"

# Out of the packages' own folder, which has a name by Xen's version.
XEN_PROGRAMS = "xl xenstored xenconsoled xenconsole xen-init-dom0 xentrace xentop libxl-save-helper".split()
PROGRAMS = "xenstore xenalyze".split()
XENSTORE_LINKS = "read write ls list exists rm watch chmod".split()
NOT_WANTED = re.compile(guest_image.UNUSED.pattern
                        + "|python|systemd|^udev|^sysv|^init|^e2fs|^lsb|^ucf|^grub")
GUEST_MODULES = "xen-netfront xen-pcifront svio 8021q e1000e igbvf".split()


def xen_version():
    """Of the packages in this Debian: "4.17", "4.20"."""
    for package in apt.own_apt().depends("xen-system-amd64"):
        match = re.fullmatch(r"xen-hypervisor-([\d.]+)-amd64", package)
        if match:
            return match[1]
    raise SvioError("The Debian mirror of this host has no package xen-system-amd64: look at /etc/apt for a "
                    "complete mirror, then run the command again.")


class XenToolsStep(Step):
    name = "xen-tools"
    title = "Xen and its tools"
    needs = ("packages",)

    def inputs(self):
        return ["layout 1", host.codename(), " ".join(XEN_PROGRAMS + PROGRAMS), NOT_WANTED.pattern]

    def outputs(self):
        return [HYPERVISOR, TOOLS, VERSION]

    def run(self, log):
        apt.own_apt().update(log)
        version = xen_version()
        packages = [f"xen-hypervisor-{version}-amd64", f"xen-utils-{version}", "xen-utils-common",
                    "xenstore-utils"]
        XEN.mkdir(parents=True, exist_ok=True)
        with guest_image.unpacked_packages("xen", packages, NOT_WANTED, log, whole=True) as root:
            image = next(iter(sorted((root / "boot").glob("xen-*-amd64.gz"))), None)
            if image is None:
                raise SvioError(f"Debian's package of Xen {version} has no hypervisor in /boot.")
            with gzip.open(image) as packed, open(HYPERVISOR, "wb") as out:
                shutil.copyfileobj(packed, out)
            guest_image.write(TOOLS, functools.partial(_tools_content, root, version))
            VERSION.write_text(version + "\n")


def _tools_content(root, version, archive):
    bin_folder = f"usr/lib/xen-{version}/bin"
    tree = Tree(root, more=(bin_folder,))
    for name, path in sorted(tree.closure(XEN_PROGRAMS + PROGRAMS).items()):
        if name.rsplit("/", 1)[-1] in XEN_PROGRAMS:
            name = f"{bin_folder}/{name.rsplit('/', 1)[-1]}"
        archive.file(name, path, 0o755)
    for name in XEN_PROGRAMS:
        archive.link(f"usr/sbin/{name}", f"/{bin_folder}/{name}")
    for name in XENSTORE_LINKS:
        archive.link(f"usr/bin/xenstore-{name}", "xenstore")
    # pthread_cancel() in xl opens it by name.
    archive.file("usr/lib/x86_64-linux-gnu/libgcc_s.so.1", tree.find("libgcc_s.so.1"))
    for path in sorted((root / "etc/xen/scripts").iterdir()):
        archive.file(f"etc/xen/scripts/{path.name}", path, 0o755)
    archive.data("etc/xen/xl.conf", b"")
    for folder in ("var/lib/xen", "var/lib/xenstored", "var/log/xen", "var/lock"):
        archive.folder(folder)


class XenImageStep(Step):
    """dom0's initramfs, with that of its guests in it."""

    name = "xen-image"
    title = "dom0 and its guests"
    needs = ("xen-tools", f"guest-driver-{DEFAULT_KERNEL}", "compile")

    def inputs(self):
        return ["layout 1", kernels.kernel_dir(DEFAULT_KERNEL) / "info.json", driver_module(DEFAULT_KERNEL),
                guest_image.BaseStep().digest(), XenToolsStep().digest(), SVIOCTL, " ".join(GUEST_MODULES),
                *sorted(HERE.iterdir()), *sorted(HOTPLUG.iterdir())]

    def outputs(self):
        return [GUEST, DOM0]

    def run(self, log):
        facts = kernels.info(DEFAULT_KERNEL)
        stage = _guest_stage(facts, log)
        for path in stage.rglob("svio.ko"):
            # Its debugging information is larger than the rest of the guest.
            log.run(["strip", "--strip-debug", path], "strip could not make svio.ko smaller")
        own = JUNK / "xen-guest-modules.cpio"
        guest_image.write(own, functools.partial(_guest_content, stage))
        guest_image.join(GUEST, (guest_image.XEN_GUEST_BASE, own))
        extra = JUNK / "xen-dom0-extra.cpio"
        guest_image.write(extra, functools.partial(_dom0_content, facts))
        guest_image.join(DOM0, (guest_image.initrd(DEFAULT_KERNEL), TOOLS, extra))
        for path in (own, extra):
            path.unlink()
        shutil.rmtree(stage)


def _guest_stage(facts, log):
    """What modules a guest of Xen needs, and depmod's indexes of just these."""
    source = guest_image.stage_dir(DEFAULT_KERNEL) / "lib/modules" / facts["version"]
    names, needs = kernels.dependencies(source)
    stage = JUNK / "xen-guest-stage"
    shutil.rmtree(stage, ignore_errors=True)
    target = stage / "lib/modules" / facts["version"]
    for module in GUEST_MODULES:
        path = names.get(module.replace("-", "_"))
        if path is None:
            raise SvioError(f"Debian's kernel has no module {module}, which a guest of Xen needs.")
        for item in (path, *needs[path]):
            (target / item).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / item, target / item)
    for path in source.glob("modules.builtin*"):
        if not path.name.endswith(".bin"):
            shutil.copy2(path, target)
    (target / "modules.order").write_text("")
    log.run([kernels.depmod(), "-b", stage, facts["version"]],
            "depmod could not read the Xen guest's modules")
    return stage


def _guest_content(stage, archive):
    for name in ("xen-console-shell", "xen-virtual-guest"):
        archive.file(f"usr/sbin/{name}", HERE / name, 0o755)
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            archive.file("usr/" + str(path.relative_to(stage)), path, 0o644)


def _dom0_content(facts, archive):
    archive.file("usr/bin/svioctl", SVIOCTL, 0o755)
    archive.file("boot/guest-kernel", facts["image"], 0o644)
    archive.file("boot/guest.cpio", GUEST, 0o644)
    for path in sorted(HERE.iterdir()):
        archive.file(f"usr/sbin/{path.name}", path, 0o755)
    for path in sorted(HOTPLUG.iterdir()):
        archive.file(f"etc/xen/scripts/{path.name}", path, 0o755)
