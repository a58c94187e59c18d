# SPDX-License-Identifier: GPL-2.0-or-later
"""What `scripts/svio package` and `meson install` make, and that QEMU loads the plugin from there."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from svio_tool import build, host, kernels, package, setup
from svio_tool.paths import BUILD, DEFAULT_KERNEL, PACKAGE, QEMU, QEMU_HEADERS, REPO

DEADLINE = 300
LIBRARY = "lib/x86_64-linux-gnu/svio"
# Lengths of the texts in SPEC.md and the like may change; that they are there may not.
COMMON = {"changelog.gz", "copyright"}
DRIVER = {path.name for path in (REPO / "guest-driver").iterdir() if path.name != "dkms.conf.in"} \
    | {"svio_abi.h", "dkms.conf"}

COMPLETIONS = {f"share/bash-completion/completions/{name}" for name in ("svioctl", "svio-board")}
UNITS = {f"lib/systemd/{manager}/svio-board@.service" for manager in ("system", "user")}


def output(*words, **options):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=DEADLINE, check=False,
                          **{"stdin": subprocess.DEVNULL, **options})
    if done.returncode:
        raise AssertionError(f"{words}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def realize(plugin):
    """QEMU's tree of devices with a card from this plugin in it."""
    done = subprocess.run([QEMU, "-plugin", str(plugin), "-nodefaults", "-no-user-config", "-display", "none",
                           "-machine", "q35", "-accel", "tcg", "-S", "-monitor", "stdio",
                           "-netdev", "user,id=n0", "-device", "svio-nic,id=svio0,netdev=n0,cores=2"],
                          input="info qtree\nquit\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=DEADLINE, check=False)
    return done.returncode, done.stdout


class TestPackages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        setup.ensure(["package"])
        cls.root = Path(tempfile.mkdtemp(prefix="svio-package-"))
        cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
        cls.deb, cls.files = {}, {}
        for path in sorted(PACKAGE.glob("*.deb")):
            name = path.name.split("_")[0]
            cls.deb[name] = path
            output("dpkg-deb", "-x", path, cls.root / name)
            cls.files[name] = files(cls.root / name)
        cls.version = re.search(r"version: '([^']+)'", (REPO / "meson.build").read_text())[1]

    def control(self, name, field):
        return output("dpkg-deb", "-f", self.deb[name], field).strip()

    def documents(self, name, *more):
        return {f"usr/share/doc/{name}/{file}" for file in COMMON | set(more)}

    def same(self, name, inside, source):
        self.assertEqual((self.root / name / inside).read_bytes(), (REPO / source).read_bytes(), inside)

    # ---- what is in them ----

    def test_all_packages(self):
        wanted = {path.name for path in package.packages()}
        self.assertEqual({path.name for path in self.deb.values() if "-dbgsym_" not in path.name}, wanted)
        self.assertEqual(set(self.deb), {"svio-qemu", "svio-qemu-dbgsym", "svio-dkms", "svio-tools",
                                         "svio-tools-dbgsym", "svio-dev"})

    def test_files_of_the_plugin(self):
        self.assertEqual(self.files["svio-qemu"], self.documents("svio-qemu", "README.md.gz")
                         | {f"usr/{LIBRARY}/svio.so", f"usr/{LIBRARY}/svio-adapter.so"})

    def test_files_of_the_driver(self):
        folder = f"usr/src/svio-{self.version}"
        self.assertEqual(self.files["svio-dkms"], self.documents("svio-dkms")
                         | {f"{folder}/{name}" for name in DRIVER})
        for name in DRIVER - {"dkms.conf"}:
            self.same("svio-dkms", f"{folder}/{name}",
                      ("hv-interface/" if name == "svio_abi.h" else "guest-driver/") + name)

    def test_files_of_tools_and_header(self):
        self.assertEqual(self.files["svio-tools"], self.documents("svio-tools")
                         | {f"usr/{name}" for tool in ("svioctl", "svio-wire-peer", "svio-board")
                            for name in (f"bin/{tool}", f"share/man/man1/{tool}.1.gz")}
                         | {f"usr/{name}" for name in COMPLETIONS | UNITS})
        self.assertEqual(self.files["svio-dev"], self.documents("svio-dev", "SPEC.md.gz")
                         | {"usr/include/svio/svio_abi.h", "usr/include/svio/svio_client.hpp",
                            f"usr/{Path(LIBRARY).parent}/libsvio-client.a",
                            f"usr/{Path(LIBRARY).parent}/pkgconfig/svio-client.pc"})
        for name in ("svio_abi.h", "svio_client.hpp"):
            self.same("svio-dev", f"usr/include/svio/{name}", f"hv-interface/{name}")
        self.assertIn("vif", output(self.root / "svio-tools/usr/bin/svioctl", "--help"))
        self.assertIn("ExecStart=/usr/bin/svio-board ", (
            self.root / "svio-tools/usr/lib/systemd/user/svio-board@.service").read_text())
        self.assertIn("--socket", output(self.root / "svio-tools/usr/bin/svio-board", "--help"))
        said = output(self.root / "svio-tools/usr/bin/svio-wire-peer", "--help")
        self.assertIn("Usage: svio-wire-peer --wire", said)

    def test_all_is_roots_and_nothing_odd(self):
        for name, path in self.deb.items():
            for line in output("dpkg-deb", "-c", path).splitlines():
                self.assertRegex(line, r"^(-rw-r--r--|-rwxr-xr-x|drwxr-xr-x|lrwxrwxrwx) root/root ", name)

    def test_no_path_of_the_machine_that_built_it(self):
        places = [os.fsencode(str(path)) for path in (REPO, BUILD)]
        for name, inside in self.files.items():
            for file in inside:
                path = self.root / name / file
                data = b"" if path.is_symlink() else path.read_bytes()
                for place in places:
                    self.assertNotIn(place, data, f"{name}: {file}")
        # The debugging symbols, which are compressed, and the texts of assertions.
        for file in self.files["svio-qemu-dbgsym"]:
            path = self.root / "svio-qemu-dbgsym" / file
            if file.endswith(".debug"):
                self.assertNotIn(str(REPO), output("readelf", "--debug-dump=info,line,str", path), file)

    def test_second_time_does_nothing(self):
        before = {path: path.stat().st_mtime_ns for path in self.deb.values()}
        # Where Debian packages had to be installed the first time, what is installed is looked at once more.
        setup.ensure(["package"])
        self.assertEqual(setup.ensure(["package"]), 0)
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.deb.values()}, before)

    # ---- what they say of themselves ----

    def test_one_version(self):
        self.assertEqual(package.version(), self.version)
        for name in self.deb:
            self.assertEqual(self.control(name, "Version"), self.version, name)
        for script in ("postinst", "prerm"):
            text = output("dpkg-deb", "-I", self.deb["svio-dkms"], script)
            self.assertRegex(text, rf"(?m)^\s*(DKMS_)?VERSION={re.escape(self.version)}$")
            self.assertRegex(text, r"(?m)^\s*(DKMS_)?NAME=svio$")

    def test_dkms_conf(self):
        folder = self.root / f"svio-dkms/usr/src/svio-{self.version}"
        names = "PACKAGE_NAME PACKAGE_VERSION BUILT_MODULE_NAME DEST_MODULE_LOCATION AUTOINSTALL"
        script = f". ./dkms.conf; for n in {names}" + '; do echo "${!n}"; done'
        self.assertEqual(output("bash", "-euc", script, cwd=folder).splitlines(),
                         ["svio", self.version, "svio", "/updates/dkms", "yes"])
        # As dkms compares it: with the version of the kernel that it builds for.
        script = '. ./dkms.conf; for v in "$@"; do [[ $v =~ $BUILD_EXCLUSIVE_KERNEL ]] && echo $v; done; true'
        good = ["6.1.0-49-amd64", "6.12.41+deb13-amd64", "6.9.7", "7.0.1", "10.2"]
        bad = ["5.10.0-30-amd64", "6.0.3", "4.19.0", "2.6.39"]
        self.assertEqual(output("bash", "-euc", script, "-", *good, *bad, cwd=folder).split(), good)

    def test_only_this_version_of_qemu_will_do(self):
        depends = self.control("svio-qemu", "Depends")
        range_ = dict(re.findall(r"qemu-system-x86 \((>=|<<) ([^)]+)\)", depends))
        self.assertEqual(set(range_), {">=", "<<"}, depends)

        def fits(version):
            return all(subprocess.run(["dpkg", "--compare-versions", version, sign, limit],
                                      check=False).returncode == 0
                       for sign, limit in (("ge", range_[">="]), ("lt", range_["<<"])))
        self.assertTrue(fits((QEMU_HEADERS / "package-version").read_text().strip()))
        self.assertTrue(fits(host.package_version("qemu-system-x86")))
        major, minor, micro = host.qemu_version()
        for other in ((minor, micro + 1), (minor, micro - 1), (minor + 1, 0)):
            self.assertFalse(fits(f"1:{major}.{other[0]}.{other[1]}+ds-2"), other)

    def test_the_driver_wants_dkms(self):
        self.assertRegex(self.control("svio-dkms", "Depends"), r"\bdkms\b")
        self.assertEqual(self.control("svio-dkms", "Architecture"), "all")

    # ---- that they work ----

    def test_the_driver_builds_from_its_folder_alone(self):
        folder = self.root / "dkms-build"
        shutil.copytree(self.root / f"svio-dkms/usr/src/svio-{self.version}", folder)
        command = build.driver_command(DEFAULT_KERNEL, f"M={folder}")
        said = output(*command, env=build.environment())
        self.assertNotIn("warning:", re.sub(r".*compiler differs.*", "", said))
        facts = output("/sbin/modinfo", folder / "svio.ko")
        self.assertRegex(facts, r"alias: +pci:v00001234d00005110sv")
        self.assertIn(f"vermagic:       {kernels.info(DEFAULT_KERNEL)['version']} ", facts)

    def test_qemu_loads_the_packaged_plugin(self):
        status, said = realize(self.root / f"svio-qemu/usr/{LIBRARY}/svio.so")
        self.assertEqual(status, 0, said)
        self.assertIn('dev: svio-nic, id "svio0"', said)
        self.assertRegex(said, r"cores = 2\b")

    def test_the_plugin_wants_its_other_half(self):
        alone = self.root / "alone.so"
        shutil.copyfile(self.root / f"svio-qemu/usr/{LIBRARY}/svio.so", alone)
        status, said = realize(alone)
        self.assertEqual(status, 1, said)
        self.assertIn("cannot open svio-adapter.so beside the plugin", said)


class TestMesonInstall(unittest.TestCase):
    """With DESTDIR, below the prefix that the build folder was set up with."""

    @classmethod
    def setUpClass(cls):
        cls.destination = Path(tempfile.mkdtemp(prefix="svio-install-"))
        cls.addClassCleanup(shutil.rmtree, cls.destination, ignore_errors=True)
        output("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.destination,
               env=build.environment())
        cls.root = cls.destination / "usr/local"

    def test_files(self):
        self.assertEqual(files(self.destination), {f"usr/local/{name}" for name in {
            f"{LIBRARY}/svio.so", f"{LIBRARY}/svio-adapter.so", "bin/svio-wire-peer", "bin/svio-board",
            "share/man/man1/svio-wire-peer.1", "include/svio/svio_abi.h", "share/doc/svio/README.md",
            "share/doc/svio/SPEC.md", "bin/svioctl", "share/man/man1/svioctl.1",
            "share/man/man1/svio-board.1", *COMPLETIONS, *UNITS, "include/svio/svio_client.hpp",
            f"{Path(LIBRARY).parent}/libsvio-client.a", f"{Path(LIBRARY).parent}/pkgconfig/svio-client.pc",
            *(f"src/svio-{package.version()}/{name}" for name in DRIVER)}})

    def test_qemu_loads_the_installed_plugin(self):
        status, said = realize(self.root / LIBRARY / "svio.so")
        self.assertEqual(status, 0, said)
        self.assertIn('dev: svio-nic, id "svio0"', said)

    def test_the_version_is_filled_in(self):
        text = (self.root / f"src/svio-{package.version()}/dkms.conf").read_text()
        self.assertIn(f'PACKAGE_VERSION="{package.version()}"\n', text)
        self.assertNotIn("@", text)
