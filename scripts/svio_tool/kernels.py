# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest kernels: Debian's packages unpacked below build/, never installed on the host."""
import json
import re
import shutil

from svio_tool import apt, host
from svio_tool.paths import BUILD, JUNK, kernel_dir
from svio_tool.steps import Step
from svio_tool.ui import SvioError

# Modules that test VMs may want; what these depend on comes along.
MODULES = """
    virtio_net virtio_pci virtio_console virtio_rng virtio_blk virtio_balloon vsock
    e1000 e1000e igb igbvf vmxnet3 8139cp 8139too pcnet32 tulip ne2k-pci ixgbevf
    8021q dummy bridge veth tun tap macvlan macvtap vxlan bonding vcan ifb nlmon
    sch_fq sch_fq_codel sch_netem sch_tbf sch_ingress sch_mqprio sch_prio sch_htb cls_u32
    cls_flower cls_matchall act_mirred act_police act_gact vrf ip_gre nf_tables nft_ct ip_tables
    iptable_filter nf_conntrack psample pktgen tcp_bbr tls sctp kvm_intel kvm_amd vfio-pci
    vfio_iommu_type1 pci-stub uio_pci_generic 9p 9pnet_virtio netdevsim
    xenfs xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xen-netback xen-pciback xen-netfront xen-pcifront
""".split()


def info(kernel):
    """{"version", "image", "headers", "modules", "cc"} of an unpacked kernel."""
    try:
        facts = json.loads((kernel_dir(kernel) / "info.json").read_text())
    except OSError:
        raise SvioError(f"The guest kernel {kernel} is not there yet: run scripts/svio setup.") from None
    base = kernel_dir(kernel)
    return {"version": facts["version"], "image": base / facts["image"], "headers": base / facts["headers"],
            "modules": base / facts["modules"], "cc": facts["cc"]}


def _image_package(kernel, source):
    """Name of the package with the image itself; the metapackage only depends on it."""
    if kernel == "6.1":
        meta = ["linux-image-amd64"]
    else:
        meta = ["linux-image-6.12-amd64", "linux-image-amd64"]
    for package in meta:
        for candidate in source.cache("depends", package).splitlines():
            match = re.search(rf"Depends: (linux-image-({re.escape(kernel)}\.\S+-amd64))$", candidate)
            if match:
                return match[1]
    # Older archives offer 6.12 for Debian 12 in backports only.
    names = re.findall(rf"^(linux-image-{re.escape(kernel)}\.[0-9.]+(?:-\d+)?(?:\+[a-z0-9.~]+)?-amd64)$",
                       source.cache("pkgnames", f"linux-image-{kernel}."), re.M)
    found = [name for name in names if source.newest(name)]
    if found:
        return sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])[-1]
    raise SvioError(f"The Debian mirror of this host has no kernel {kernel}: look at /etc/apt for a "
                    "mirror that carries the security updates, then run scripts/svio setup.")


def _source(kernel):
    return apt.bookworm_apt() if kernel == "6.1" else apt.own_apt()


def _packages(kernel, source):
    image = _image_package(kernel, source)
    headers = image.replace("linux-image-", "linux-headers-")
    wanted = [image, headers]
    for name in source.depends(headers):
        if name.startswith(("linux-headers-", "linux-kbuild-")):
            wanted.append(name)
    return image.replace("linux-image-", ""), sorted(set(wanted))


class KernelStep(Step):
    def __init__(self, kernel):
        self.kernel = kernel
        self.name = f"kernel-{kernel}"
        self.title = f"guest kernel {kernel} and its headers"
        self.needs = ("packages",)

    def inputs(self):
        return ["layout 2", self.kernel, host.codename(), " ".join(MODULES)]

    def outputs(self):
        return [kernel_dir(self.kernel) / "info.json"]

    def run(self, log):
        source = _source(self.kernel)
        source.update(log)
        version, packages = _packages(self.kernel, source)
        debs = source.download(packages, JUNK / self.name, log)
        new = BUILD / f"kernel-{self.kernel}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for deb in debs:
            log.run(["dpkg", "-x", deb, new], f"Could not unpack {deb.name}")
        facts = _arrange(new, version, kernel_dir(self.kernel), log)
        (new / "info.json").write_text(json.dumps(facts, indent=1) + "\n")
        shutil.rmtree(kernel_dir(self.kernel), ignore_errors=True)
        new.rename(kernel_dir(self.kernel))
        shutil.rmtree(JUNK / self.name, ignore_errors=True)


def _arrange(base, version, final, log):
    """Keep what is needed, and make the headers work where they lie."""
    headers = base / f"usr/src/linux-headers-{version}"
    common = next(base.glob("usr/src/linux-headers-*-common*"))
    # Debian's file includes the absolute path of the installed package.
    makefile = headers / "Makefile"
    makefile.write_text(f"include {final}/usr/src/{common.name}/Makefile\n")
    # With this file Kbuild would want pahole for type information that nobody reads here.
    (headers / "vmlinux").unlink(missing_ok=True)
    modules = base / f"lib/modules/{version}"
    if not modules.exists():
        modules = base / f"usr/lib/modules/{version}"
    for link in ("build", "source"):
        (modules / link).unlink(missing_ok=True)
    _trim_modules(base, modules, version, log)
    text = (headers / ".config").read_text()
    compiler = re.search(r'CONFIG_CC_VERSION_TEXT="(?:x86_64-linux-gnu-)?(gcc-\d+)', text)
    return {"version": version, "image": f"boot/vmlinuz-{version}",
            "headers": str(headers.relative_to(base)), "modules": str(modules.relative_to(base)),
            "cc": compiler[1] if compiler else "gcc"}


def _depmod(base, modules, version, log):
    # depmod looks below lib/modules only; newer packages unpack to usr/lib.
    root = base / "usr" if modules.parts[-4] == "usr" or "usr/lib/modules" in str(modules) else base
    log.run([depmod(), "-b", root, version], "depmod could not read the guest's modules")


def depmod():
    return shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin") or "/usr/sbin/depmod"


def dependencies(modules):
    """{module name: path} and {path: paths it needs} from modules.dep."""
    names, needs = {}, {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        names[re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")] = path
        needs[path] = rest.split()
    return names, needs


def _trim_modules(base, modules, version, log):
    """Of 400 MB of modules a test VM wants a few."""
    _depmod(base, modules, version, log)
    names, needs = dependencies(modules)
    keep = set()
    for module in MODULES:
        path = names.get(module.replace("-", "_"))
        if path:
            keep |= {path, *needs[path]}
        else:
            log.write(f"module {module}: built in, or not in this kernel")
    for path in needs:
        if path not in keep:
            (modules / path).unlink()
    for folder in sorted((modules / "kernel").rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    _depmod(base, modules, version, log)
