# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug guest kernel: Debian's linux-source with KASAN, lockdep, DMA-API debug and kmemleak.

It is built once, in half an hour on two CPUs, and lies below build/ like the guest kernels from Debian's
packages. debug-kernel.config says what differs from x86_64's defconfig.
"""
import hashlib
import json
import re
import shutil
from pathlib import Path

from svio_tool import apt, build, host
from svio_tool.paths import BUILD, DEBUG_KERNEL, JUNK, kernel_dir
from svio_tool.steps import Step
from svio_tool.ui import SvioError

SOURCE = "linux-source-6.12"
CONFIG = Path(__file__).parent / "debug-kernel.config"
ROOM = 8 << 30


class DebugKernelStep(Step):
    name = f"kernel-{DEBUG_KERNEL}"
    title = "debug guest kernel (builds for half an hour, once)"
    needs = ("packages",)

    def inputs(self):
        return ["layout 1", host.codename(), CONFIG]

    def outputs(self):
        return [kernel_dir(DEBUG_KERNEL) / "info.json"]

    def run(self, log):
        if shutil.disk_usage(BUILD).free < ROOM:
            raise SvioError(f"The debug kernel wants {ROOM >> 30} GiB below {BUILD} while it is built: make "
                            "room and run the command again.")
        base = kernel_dir(DEBUG_KERNEL)
        tree = base / "tree"
        (base / "info.json").unlink(missing_ok=True)
        shutil.rmtree(base, ignore_errors=True)
        unpack_source(tree, log)
        _configure(tree, log)
        _make(tree, log, "bzImage", "modules")
        modules = base / "install"
        shutil.rmtree(modules, ignore_errors=True)
        _make(tree, log, f"INSTALL_MOD_PATH={modules}", "INSTALL_MOD_STRIP=1", "modules_install")
        shutil.copyfile(tree / "arch/x86/boot/bzImage", base / "vmlinuz")
        _trim(tree)
        version = (tree / "include/config/kernel.release").read_text().strip()
        facts = {"version": version, "image": "vmlinuz", "headers": "tree",
                 "modules": f"install/lib/modules/{version}", "cc": "gcc",
                 # What is built for this kernel is built anew with another configuration of the same version.
                 "config": hashlib.sha256((tree / ".config").read_bytes()).hexdigest()}
        (base / "info.json").write_text(json.dumps(facts, indent=1) + "\n")


def unpack_source(tree, log, parts=("",)):
    """Debian's source of the kernel in a new folder; of parts only, all whose names begin so."""
    source = apt.own_apt()
    source.update(log)
    folder = JUNK / "kernel-source"
    debs = source.download([SOURCE], folder, log)
    log.run(["dpkg", "-x", debs[0], folder / "unpacked"], f"Could not unpack {debs[0].name}")
    archive = next(folder.glob("unpacked/usr/src/linux-source-*.tar.xz"))
    tree.mkdir(parents=True)
    log.run(["tar", "-xf", archive, "-C", tree, "--strip-components=1", "--wildcards",
             *(f"*/{part}*" for part in parts)], f"Could not unpack {archive.name}")
    shutil.rmtree(folder)


def _configure(tree, log):
    _make(tree, log, "x86_64_defconfig")
    log.run([tree / "scripts/kconfig/merge_config.sh", "-m", ".config", CONFIG],
            "The debug kernel's configuration could not be merged", cwd=tree, env=build.environment())
    _make(tree, log, "olddefconfig")
    have = (tree / ".config").read_text().splitlines()
    # Kconfig drops in silence what it does not know or cannot have.
    wanted = [line for line in CONFIG.read_text().splitlines() if re.match(r"CONFIG_\w+=", line)]
    lost = [line for line in wanted if line not in have]
    if lost:
        raise SvioError(f"This kernel cannot have what {CONFIG.name} asks for: " + ", ".join(lost))


def _make(tree, log, *words):
    log.run(["make", "-C", tree, "-s", "-j", build.jobs(), *words],
            "The debug kernel does not build", env=build.environment())


def _trim(tree):
    """Modules are built against the tree; its own objects are of no use for that."""
    for name in ("vmlinux", "vmlinux.unstripped", "vmlinux.o", "vmlinux.a"):
        (tree / name).unlink(missing_ok=True)
    for path in tree.iterdir():
        if path.is_dir() and path.name not in ("scripts", "tools"):
            for pattern in ("*.o", "*.a", "*.ko"):
                for item in path.rglob(pattern):
                    item.unlink()
