# SPDX-License-Identifier: GPL-2.0-or-later
"""The headers of exactly the QEMU that is installed: from its source package, generated ones included.

QEMU itself is never compiled. Layout, which meson.build relies on: build/qemu-headers/src (source),
build/qemu-headers/src/b (its build folder), version ("10.0.2"), package-version.
"""
import re
import shutil

from svio_tool import apt, host, ui
from svio_tool.paths import BUILD, JUNK, PYTHON, QEMU, QEMU_HEADERS
from svio_tool.steps import Step
from svio_tool.ui import SvioError

CONFIGURE = """--target-list=x86_64-softmmu --without-default-features --enable-system --enable-tcg
    --enable-kvm --enable-modules --enable-plugins --disable-download --disable-docs
    --disable-install-blobs""".split()


class QemuHeadersStep(Step):
    name = "qemu-headers"
    title = "headers of the installed QEMU"
    needs = ("packages",)

    def inputs(self):
        return ["layout 3", host.package_version("qemu-system-x86") or str(host.qemu_version()),
                " ".join(CONFIGURE)]

    def outputs(self):
        return [QEMU_HEADERS / "version", QEMU_HEADERS / "src/b/config-host.h"]

    def run(self, log):
        version = host.package_version("qemu-system-x86")
        triple = host.qemu_version()
        if not version or not triple:
            raise SvioError(f"{QEMU} is not installed from a Debian package: run scripts/svio doctor.")
        tarball = _tarball(version, log)
        new = BUILD / "qemu-headers.new"
        shutil.rmtree(new, ignore_errors=True)
        (new / "src").mkdir(parents=True)
        log.run(["tar", "-x", "--strip-components=1", "-C", new / "src", "-f", tarball],
                "Could not unpack QEMU's source")
        found = (new / "src/VERSION").read_text().strip()
        if found != ".".join(map(str, triple)):
            raise SvioError(f"The mirror has the source of QEMU {found}, but {'.'.join(map(str, triple))} is "
                            "installed: run apt-get update and apt-get upgrade, then scripts/svio setup.")
        # The build folder has absolute paths in it, so it is made where it will stay.
        shutil.rmtree(QEMU_HEADERS, ignore_errors=True)
        new.rename(QEMU_HEADERS)
        _generate(QEMU_HEADERS / "src", log)
        _trim(QEMU_HEADERS / "src")
        (QEMU_HEADERS / "package-version").write_text(version + "\n")
        (QEMU_HEADERS / "version").write_text(found + "\n")
        shutil.rmtree(JUNK / "qemu-source", ignore_errors=True)


def _tarball(version, log):
    """The upstream tarball of the installed package, or of the newest one with the same upstream version."""
    source = apt.own_apt()
    source.update(log)
    folder = JUNK / "qemu-source"
    wanted = [version]
    upstream = re.sub(r"^\d+:", "", version).split("-")[0]
    for line in source.cache("madison", "qemu").splitlines():
        other = line.split("|")[1].strip()
        if line.rstrip().endswith("Sources") and re.sub(r"^\d+:", "", other).split("-")[0] == upstream:
            wanted.append(other)
    for candidate in dict.fromkeys(wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            log.run(["apt-get", *source.options(), "-q", "source", "--download-only", "--tar-only",
                     f"qemu={candidate}"], "no such source", cwd=folder, env=apt.environment())
        except SvioError as error:
            log.write(str(error))
            continue
        found = sorted(folder.glob("*.orig.tar.*"))
        found = [path for path in found if not path.name.endswith(".asc")]
        if found:
            return found[0]
    raise SvioError(f"Could not fetch the source of QEMU {upstream}, which is installed: check the network; "
                    "if the mirror has a newer one, run apt-get upgrade, then scripts/svio setup.",
                    ui.tail(log.path))


def _generate(src, log):
    """Configure, then make the generated headers and nothing else."""
    path = src / "pythondeps.toml"
    # A test runner that Debian's tarball does not bring; nothing of ours uses it.
    path.write_text("".join(line for line in path.read_text().splitlines(True)
                            if not line.startswith("pycotap")))
    # Firmware that the tarball leaves out; configure's own switch for it does not reach this place.
    path = src / "pc-bios/meson.build"
    path.write_text(path.read_text().replace("if unpack_edk2_blobs\n", "if false\n"))
    build = src / "b"
    build.mkdir()
    log.run(["../configure", f"--python={PYTHON}", *CONFIGURE],
            "QEMU's configure failed", cwd=build, env=apt.environment())
    targets = ui.output(["ninja", "-C", build, "-t", "targets", "all"], "ninja does not list QEMU's targets")
    headers = re.findall(r"^([^\s:]+\.h): CUSTOM", targets, re.M)
    if len(headers) < 50:
        raise SvioError("QEMU's build names hardly any generated header: this QEMU is not known here.")
    log.run(["ninja", "-C", build, *headers], "QEMU's generated headers could not be made")


def _trim(src):
    """Only headers and what describes their compilation stay: 700 MB become 30."""
    keep = {".h", ".inc", ".json"}
    special = {"config-host.mak", "config.status", "VERSION", "COPYING", "LICENSE"}
    for path in sorted(src.rglob("*"), reverse=True):
        if path.is_symlink() or path.is_file():
            inside = path.relative_to(src).parts
            unused = inside[0] in ("roms", "tests", "pc-bios", "docs", "po", "subprojects", "disas")
            if unused or (path.suffix not in keep and path.name not in special):
                path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
