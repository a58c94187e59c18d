# SPDX-License-Identifier: GPL-2.0-or-later
"""A private apt: own sources list, own package lists, own cache, so that the user's stay as they are.

No mirror is named here. The host's own apt configuration says where Debian is fetched from; what else
is needed (backports, sources, the previous release) lives on the same mirror.
"""
import glob
import os
import re
import shutil
import time
from pathlib import Path

from svio_tool import host, ui
from svio_tool.paths import BUILD
from svio_tool.ui import SvioError

LISTS_MAX_AGE = 24 * 3600


def _deb822(text):
    for block in re.split(r"\n\s*\n", text):
        fields, last = {}, None
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and last:
                fields[last] += "\n" + line.strip()
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        options = {key: fields[key] for key in ("signed-by", "trusted") if key in fields}
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, fields.get("components", "").split(), options


def _one_line(text):
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            words = [word.split("=", 1) for word in (match[1] or "").split() if "=" in word]
            options = {key.lower(): value for key, value in words if key.lower() in ("signed-by", "trusted")}
            yield match[2], match[3], match[4].split(), options


def host_sources():
    """(uri, suite, components, options) of every binary source that the host's apt is set up with."""
    found = []
    names = ["/etc/apt/sources.list"] + sorted(glob.glob("/etc/apt/sources.list.d/*"))
    for name in names:
        try:
            text = Path(name).read_text()
        except OSError:
            continue
        if name.endswith(".sources"):
            found += list(_deb822(text))
        elif name.endswith(".list"):
            found += list(_one_line(text))
    return [entry for entry in found if not entry[0].startswith("cdrom:")]


def _mirror(codename):
    """(main entry, security entry or None) for this release of Debian."""
    sources = host_sources()
    names = (codename, "stable", "oldstable")
    main = [s for s in sources if s[1].rstrip("/") in names and "main" in s[2]]
    if not main:
        raise SvioError(f"The apt sources of this host do not name a Debian mirror for {codename}: "
                        "add one to /etc/apt/sources.list and run the command again.")
    security = [s for s in sources if re.match(r".+-security$", s[1]) and "main" in s[2]]
    return main[0], (security[0] if security else None)


def _option_text(options):
    words = []
    signed = options.get("signed-by", "")
    if not signed:
        rings = glob.glob("/usr/share/keyrings/debian-archive-keyring.[gp]*p*")
        signed = sorted(rings)[0] if rings else ""
    if signed and "BEGIN PGP" in signed:
        ring = BUILD / "apt" / "host-key.asc"
        ring.parent.mkdir(parents=True, exist_ok=True)
        ring.write_text("\n".join("" if line == "." else line for line in signed.strip().splitlines()) + "\n")
        signed = str(ring)
    if signed:
        words.append("signed-by=" + signed)
    if options.get("trusted", "").lower() == "yes":
        words.append("trusted=yes")
    return f"[{' '.join(words)}] " if words else ""


def sources_text(suites, own_release):
    """The private sources list for some suites, for example bookworm and bookworm-backports."""
    main, security = _mirror(host.codename())
    lines = []
    for suite in suites:
        entry = main
        if suite.endswith("-security"):
            if security is None:
                continue
            entry = security
        for kind in ("deb", "deb-src") if own_release else ("deb",):
            lines.append(f"{kind} {_option_text(entry[3])}{entry[0]} {suite} main")
    return "\n".join(lines) + "\n"


class Apt:
    """apt-get and apt-cache over one private set of lists."""

    def __init__(self, name, suites, own_release=True):
        self.suites = suites
        self.own_release = own_release
        self.dir = BUILD / "apt" / name
        self.list_file = self.dir / "sources.list"
        self.stamp = self.dir / "updated"

    def options(self, as_root=False):
        pairs = {
            "Dir::Etc::sourcelist": self.list_file, "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": self.dir / "lists", "Dir::Cache": self.dir / "cache",
            # Hooks of the host (desktop kits, index converters) have no business with private lists.
            "Acquire::GzipIndexes": "false", "Acquire::Languages": "none", "Acquire::Retries": "3",
            "APT::Sandbox::User": "root", "APT::Get::List-Cleanup": "true",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb-src::Contents-dsc::DefaultEnabled": "false",
        }
        if as_root:
            # What root writes must not get in the way of the user's next run.
            pairs.update({"Dir::Cache": self.dir / "root-cache", "Dir::Cache::pkgcache": "",
                          "Dir::Cache::srcpkgcache": ""})
        else:
            pairs.update({"Dir::Cache::pkgcache": "pkgcache.bin",
                          "Dir::Cache::srcpkgcache": "srcpkgcache.bin", "Debug::NoLocking": "true"})
        words = []
        for key, value in pairs.items():
            words += ["-o", f"{key}={value}"]
        return words

    def _prepare(self):
        text = sources_text(self.suites, self.own_release)
        for folder in ("lists/partial", "cache/archives/partial", "root-cache/archives/partial"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        if not self.list_file.exists() or self.list_file.read_text() != text:
            self.list_file.write_text(text)
            self.stamp.unlink(missing_ok=True)

    def update(self, log, force=False):
        """Fetch the package lists unless they are fresh."""
        self._prepare()
        if not force and self.stamp.exists() and time.time() - self.stamp.stat().st_mtime < LISTS_MAX_AGE:
            return
        log.run(["apt-get", *self.options(), "-q", "-o", "APT::Update::Error-Mode=any", "update"],
                "Could not fetch Debian's package lists: check the network and the mirror in /etc/apt, "
                "then run the command again", env=environment())
        self.stamp.write_text("")

    def download(self, packages, folder, log):
        """Fetch .deb files (name or name=version) into a folder; stale lists are refreshed once."""
        folder = Path(folder)
        self.update(log)
        temporary = folder.with_name(folder.name + ".part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        command = ["apt-get", *self.options(), "-q", "download", *packages]
        sentence = ("Could not download Debian packages: check the network and the mirror in /etc/apt, "
                    "then run the command again")
        try:
            log.run(command, sentence, cwd=temporary, env=environment())
        except SvioError:
            self.update(log, force=True)
            log.run(command, sentence, cwd=temporary, env=environment())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        return sorted(folder.glob("*.deb"))

    def cache(self, *words):
        """apt-cache's answer as text ("" when there is none)."""
        return ui.output(["apt-cache", *self.options(), *words], env=environment()) or ""

    def newest(self, package):
        """The version that apt would take, or None."""
        match = re.search(r"Candidate: (\S+)", self.cache("policy", package))
        return None if not match or match[1] == "(none)" else match[1]

    def newest_in(self, package, suite):
        """The newest version of a package in one suite, or None."""
        versions = []
        for line in self.cache("madison", package).splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and re.search(rf"\s{re.escape(suite)}/", " " + fields[2]) \
                    and "Packages" in fields[2]:
                versions.append(fields[1])
        return versions[0] if versions else None

    def depends(self, package):
        """Names of the direct dependencies."""
        return re.findall(r"^\s*\|?Depends: ([^\s<]+)", self.cache("depends", package), re.M)

    def closure(self, packages, log):
        """name=version of packages with all they depend on, as for an empty system."""
        self.update(log)
        empty = self.dir / "empty-status"
        empty.write_text("")
        text = ui.output(["apt-get", *self.options(), "-o", f"Dir::State::status={empty}",
                          "-o", f"Dir::State::extended_states={empty}", "--no-install-recommends",
                          "-s", "install", *packages],
                         "apt cannot work out what the guest's programs depend on", env=environment())
        return [f"{name}={version}" for name, version in
                re.findall(r"^Inst (\S+) \((\S+)", text, re.M)]


def environment():
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def own_apt():
    """The release that runs here, with what the project needs beside it."""
    name = host.codename()
    suites = [name, name + "-updates", name + "-security"]
    if name == "bookworm":
        suites.append(name + "-backports")
    return Apt("own", suites)


def bookworm_apt():
    """Debian 12, for kernel 6.1, also where a later release runs."""
    if host.codename() == "bookworm":
        return own_apt()
    return Apt("bookworm", ["bookworm", "bookworm-updates"], own_release=False)


def trixie_apt():
    """Debian 13, for programs as new as kernel 6.12, also where an earlier release runs."""
    return own_apt() if host.codename() == "trixie" else Apt("trixie", ["trixie"], own_release=False)
