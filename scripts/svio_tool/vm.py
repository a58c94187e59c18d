# SPDX-License-Identifier: GPL-2.0-or-later
"""A test VM: starts QEMU, waits for the guest, runs commands in it, and leaves nothing behind.

    with Vm("first", nics=["svio-nic,id=svio0,netdev=n0"], netdevs=["user,id=n0"]) as vm:
        print(vm.run("ip -br link").out)
"""
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from svio_tool import guest_image, host, kernels, ui
from svio_tool.agent import ANSWER, Agent, GuestError, GuestResult  # noqa: F401 (part of this module's face)
from svio_tool.kvm import XEN_ON_KVM
from svio_tool.paths import DEBUG_KERNEL, DEFAULT_KERNEL, GUEST_SLOWNESS, PLUGIN, QEMU, RUN
from svio_tool.qmp import QmpClient, QmpError
from svio_tool.ui import SvioError

PROBLEMS = re.compile("|".join((
    r"WARNING:", r"\bBUG:", r"kernel BUG", r"Oops", r"Call Trace", r"self-detected stall",
    r"rcu_\w+ detected stalls", r"NETDEV WATCHDOG", r"DMA-API", r"[Uu]nable to handle", r"soft lockup",
    r"hard LOCKUP", r"blocked for more than", r"possible circular locking", r"inconsistent lock state",
    r"possible recursive locking", r"suspicious RCU usage", r"Kernel panic", r"general protection",
    r"UBSAN", r"KASAN", r"KFENCE: ", r"refcount_t", r"scheduling while atomic",
    r"page allocation failure", r"unregister_netdevice: waiting", r"page_pool_release_retry", r"Bad page",
    r"stack-protector", r"irq \d+: nobody cared")))

# Said by a healthy kernel on the machines that QEMU emulates.
HARMLESS = re.compile(r"Spectre|Retbleed|MDS: |TAA: |MMIO Stale Data|mitigation|loading out-of-tree|"
                      r"module verification failed|DMA-API: (preallocated|debugging enabled)")


LIBC = ctypes.CDLL(None)
SERVER = "server=on,wait=off"


class VmDied(SvioError):
    """QEMU ended although nobody asked it to."""


def acceleration(accel):
    """QEMU's words for an accelerator; None means the best that works here."""
    accel = accel or os.environ.get("SVIO_ACCEL") or host.accel()
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    if accel == "tcg":
        return ["-accel", "tcg,thread=multi", "-cpu", "max"]
    if accel == "kvm-xen":
        return ["-accel", XEN_ON_KVM, "-cpu", "host,+xen-vapic"]
    raise SvioError(f"Unknown accelerator {accel}: kvm or tcg.")


def _bare(spec, kind):
    """Whether a -device line is of one of our own models."""
    return spec.split(",", 1)[0].startswith(kind)


class Vm:
    """One virtual machine; see the module's text for its use. "extra" are raw QEMU arguments."""

    CONSOLE_SOCKET = False      # the console is not only kept in a file: a terminal can be joined to it

    def __init__(self, name="vm", nics=(), netdevs=(), machine="q35", accel=None, smp=1, memory=512,
                 kernel=DEFAULT_KERNEL, extra=(), append="", plugin=None, run_dir=None, boot_timeout=180,
                 wait=True, interactive=False, detached=False, before=(), archives=(),
                 shared_memory=False, more_memory=""):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name):
            raise SvioError(f"A VM's name has letters, digits, dots and dashes only, not: {name}")
        self.name, self.nics, self.netdevs = name, list(nics), list(netdevs)
        # So the same tests run with the debug kernel, whose shadow memory takes its part.
        self.kernel = os.environ.get("SVIO_GUEST_KERNEL") or kernel
        self.machine, self.smp = machine, smp
        self.memory = memory + 1024 if self.kernel == DEBUG_KERNEL else memory      # MiB
        self.more_memory = more_memory      # as -m takes it: ",slots=32,maxmem=4G"
        self.accel, self.extra, self.append = accel, [str(word) for word in extra], append
        # Models of ours come from the plugin; other models must not be measured with it loaded.
        self.plugin = any(_bare(nic, "svio") for nic in self.nics) if plugin is None else plugin
        self.boot_timeout, self.wait, self.interactive = boot_timeout, wait, interactive
        self.detached = detached        # it may go on when we end, and then has the name
        self.before = list(before)      # words before QEMU's, of a program that becomes QEMU
        self.archives = list(archives)  # more of the guest's file system (guest_image.py)
        self.shared_memory = shared_memory      # with another process: a board's, for example
        self.run_dir = Path(run_dir) if run_dir else RUN / name
        self.sockets = self.run_dir
        self.process = self.monitor = self.agent = None
        self._lock = None

    # --- the command line -------------------------------------------------------------------------

    def command(self):
        """The QEMU command line, whole and usable by hand."""
        words = [QEMU, "-name", f"svio-{self.name},debug-threads=on", "-nodefaults", "-no-user-config",
                 "-display", "none"]
        if self.plugin:
            words += ["-plugin", str(PLUGIN)]
        machine = self.machine
        if self.shared_memory:
            machine += ",memory-backend=ram"
            words += ["-object", f"memory-backend-memfd,id=ram,size={self.memory}M,share=on"]
        words += ["-machine", machine, *self.acceleration(), "-smp", str(self.smp),
                  "-m", f"{self.memory}{self.more_memory}", *self.system()]
        words += self._channels()
        for netdev in self.netdevs:
            words += ["-netdev", netdev]
        for nic in self.nics:
            words += ["-device", nic]
        return words + self.extra

    def acceleration(self):
        return acceleration(self.accel)

    @property
    def initrd(self):
        """QEMU takes one file: with more archives than the image's, one of this VM's own."""
        return self.run_dir / "initrd.cpio" if self.archives else guest_image.initrd(self.kernel)

    def system(self):
        """What the VM boots."""
        shell = "svio.shell" if self.interactive else "loglevel=7"
        return ["-no-reboot", "-kernel", str(kernels.info(self.kernel)["image"]),
                "-initrd", str(self.initrd),
                "-append", f"console=ttyS0 panic=-1 {shell} {self.append}".strip()]

    def _channels(self):
        """Console, guest agent and monitors."""
        if self.interactive:
            words = ["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console",
                     "-mon", "chardev=console,mode=readline"]
        else:
            ports = self.ports()
            words = ["-chardev", self.console_chardev(), "-serial", "chardev:console",
                     # The number 0 is for a console, which there is not.
                     "-device", f"virtio-serial-pci,id=serial0,max_ports={len(ports) + 1}"]
            for socket, (name, options) in ports.items():
                words += ["-chardev", f"socket,id={socket},path={self.sockets / socket},{options}",
                          "-device", f"virtserialport,bus=serial0.0,chardev={socket},name={name}"]
        # The first for whoever started the VM, the second for "svio stats" and the like.
        for name in ("qmp", "control"):
            words += ["-qmp", f"unix:{self.sockets / name},server=on,wait=off"]
        return words

    def console_chardev(self):
        """QEMU's words for what the serial port is joined to."""
        if self.CONSOLE_SOCKET:
            return (f"socket,id=console,path={self.sockets / 'console'},{SERVER},"
                    f"logfile={self.log_path},logappend=off")
        return f"file,id=console,path={self.log_path}"

    def ports(self):
        """{socket: (name of the serial port in the guest, options of the socket)}"""
        return {"agent": ("org.qemu.guest_agent.0", SERVER)}

    def socket_names(self):
        """Of all that may be in the folder of sockets."""
        return ["qmp", "control", *self.ports(), *(["console"] if self.CONSOLE_SOCKET else [])]

    @property
    def log_path(self):
        return self.run_dir / "console.log"

    @property
    def error_path(self):
        return self.run_dir / "qemu.err"

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        self.stop()
        return False

    def prepare(self):
        """The run folder with the guest's file system."""
        self._claim()
        for name in (*self.socket_names(), "console.log", "qemu.err"):
            (self.run_dir / name).unlink(missing_ok=True)
        if len(str(self.run_dir / "agent")) > 100:
            # A unix socket's path has at most 107 bytes.
            self.sockets = Path(tempfile.mkdtemp(prefix="svio-"))
        self.check_image()
        self.make_files()
        if self.plugin and not PLUGIN.exists():
            raise SvioError("The plugin is not built yet: run scripts/svio setup.")

    def make_files(self):
        """What the command line refers to, also when somebody else runs it."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if self.archives:
            guest_image.join(self.initrd, (guest_image.initrd(self.kernel), *self.archives))

    def check_image(self):
        if not guest_image.initrd(self.kernel).exists():
            raise SvioError("The guest image is not built yet: run scripts/svio setup.")

    def _claim(self):
        """One VM of a name at a time; the name is free again as soon as its owner is gone."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.run_dir / "lock", "a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise SvioError(f"A VM named {self.name} runs already: end it, or take another name.") from None

    def start(self):
        self.prepare()
        words = self.command()
        ui.note(shlex.join(words))
        try:
            self._launch(words)
            self.register(words)
            self.monitor = QmpClient(self.sockets / "qmp", 60, self.check_alive)
            if self.wait:
                self.meet(self.boot_timeout * GUEST_SLOWNESS)
        except BaseException as error:
            said = self._last_words()
            self.stop()
            if isinstance(error, SvioError) and not isinstance(error, VmDied):
                raise SvioError(error.sentence, (error.detail + "\n" + said).strip()) from error
            raise

    def meet(self, timeout):
        """Wait for the guest's agent; again when the guest has come from elsewhere, or went back in time."""
        if self.agent:
            self.agent.close()
        self.agent = Agent(self.sockets / "agent", self.check_alive)
        self.agent.connect(timeout)

    def _launch(self, words):
        with open(self.error_path, "wb") as errors:
            try:
                # Its own session: Ctrl-C is ours to handle, and QEMU is asked to end in order.
                self.process = subprocess.Popen(self.before + words, stdin=subprocess.DEVNULL, stdout=errors,
                                                stderr=errors, start_new_session=True,
                                                pass_fds=(self._lock.fileno(),) if self.detached else (),
                                                preexec_fn=None if self.detached else end_with_us())
            except FileNotFoundError:
                raise SvioError(f"{QEMU} is not installed: run scripts/svio setup.") from None

    def register(self, words):
        """Tell svio stats how to find this VM."""
        facts = {"name": self.name, "pid": self.pid, "control": str(self.sockets / "control"),
                 "command": words, "nics": self.nics}
        (self.run_dir / "vm.json").write_text(json.dumps(facts, indent=1) + "\n")

    def check_alive(self):
        """Raises VmDied when QEMU is gone."""
        if self.process and self.process.poll() is not None:
            code = self.process.returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise VmDied(f"QEMU of VM {self.name} {how} while it was needed", self._last_words())

    def _last_words(self):
        parts = []
        for title, path in (("QEMU said", self.error_path), ("guest's console", self.log_path)):
            text = ui.tail(path, 12)
            if text:
                parts.append(f"--- {title} ({path}):\n{text}")
        return "\n".join(parts)

    def stop(self, grace=20):
        """Ask QEMU to quit, insist after a grace period, tidy up."""
        try:
            if self.process and self.process.poll() is None:
                self._quit(grace)
        finally:
            self.release()
            self._tidy()

    def release(self):
        """Let go of it; it may go on."""
        for part in (self.agent, self.monitor):
            if part:
                part.close()
        self.agent = self.monitor = None

    def adopt(self, process, sockets):
        """Make this the VM that another one of us has started and left running."""
        self.process, self.sockets = process, Path(sockets)
        self.monitor = QmpClient(self.sockets / "qmp", 30, self.check_alive)
        Vm.meet(self, 60)       # what a class does besides was done at its start

    def _quit(self, grace):
        try:
            if self.monitor:
                self.monitor.command("quit", timeout=5)
        except (SvioError, OSError):
            pass
        if not self.monitor:
            self.process.terminate()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                self.process.send_signal(number)
            try:
                self.process.wait(grace if number is None else 5)
                return
            except subprocess.TimeoutExpired:
                continue

    def _tidy(self):
        for name in ("vm.json",):
            (self.run_dir / name).unlink(missing_ok=True)
        for name in self.socket_names():
            (self.sockets / name).unlink(missing_ok=True)
        if self.sockets != self.run_dir:
            shutil.rmtree(self.sockets, ignore_errors=True)
            self.sockets = self.run_dir
        if self._lock:
            self._lock.close()
            self._lock = None

    # --- the guest --------------------------------------------------------------------------------

    def run(self, command, timeout=ANSWER, check=True, stdin=None):
        """Run a shell command in the guest and wait: GuestResult(rc, out, err)."""
        return self._guest().run(command, timeout, check, stdin)

    def spawn(self, command, stdin=None):
        """Start a shell command in the guest: .wait(timeout), .poll(), .kill()."""
        return self._guest().spawn(command, stdin)

    def put(self, name, data, mode=None):
        """Write a file in the guest."""
        self._guest().put(name, data, mode)

    def get(self, name):
        """A file of the guest as bytes."""
        return self._guest().get(name)

    def _guest(self):
        self.check_alive()
        if not self.agent:
            raise SvioError(f"VM {self.name} is not running.")
        return self.agent

    # --- QEMU -------------------------------------------------------------------------------------

    def qmp(self, command, timeout=60, **arguments):
        """A QMP command; underscores in the names of arguments stand for dashes."""
        self.check_alive()
        return self.monitor.command(command, {k.replace("_", "-"): v for k, v in arguments.items()}, timeout)

    def wait_event(self, name, timeout=60):
        return self.monitor.wait_event(name, timeout)

    def hmp(self, line):
        """A line for QEMU's human monitor."""
        return self.qmp("human-monitor-command", command_line=line)

    def stats(self, device="svio0"):
        """The board's counters."""
        return read_stats(self.monitor, device)

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def process_cpu_seconds(self):
        """CPU time of the whole QEMU process, on-board cores included."""
        return cpu_seconds_of(f"/proc/{self.pid}/stat")

    def thread_cpu_seconds(self):
        """{thread name: CPU seconds}; threads of one name are added up."""
        totals = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                totals[name] = totals.get(name, 0.0) + cpu_seconds_of(task / "stat")
            except (FileNotFoundError, ProcessLookupError):
                continue
        return totals

    # --- the guest's log --------------------------------------------------------------------------

    def log(self):
        """The guest's console so far."""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def kernel_problems(self):
        """Lines of the guest's kernel log that no healthy run has."""
        return [line for line in self.log().splitlines()
                if PROBLEMS.search(line) and not HARMLESS.search(line)]


def read_stats(monitor, device="svio0"):
    value = monitor.command("qom-get", {"path": f"/machine/peripheral/{device}", "property": "stats"})
    return json.loads(value) if isinstance(value, str) else value


def end_with_us():
    """For preexec_fn: SIGTERM when we die. In the main thread only: Linux watches the thread that started the
    process, not ours."""
    if threading.current_thread() is threading.main_thread():
        return lambda: LIBC.prctl(1, signal.SIGTERM)
    return None


def cpu_seconds_of(path):
    """CPU time so far of a process or thread; path: its stat in /proc."""
    text = Path(path).read_text()
    fields = text[text.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def running():
    """[facts] of the VMs that run now, from what each wrote down at its start."""
    found = []
    for path in sorted(RUN.glob("*/vm.json")):
        try:
            facts = json.loads(path.read_text())
            os.kill(facts["pid"], 0)
        except (OSError, ValueError, KeyError):
            continue
        found.append(facts)
    return found


__all__ = ["Vm", "VmDied", "GuestError", "GuestResult", "QmpError", "running", "read_stats", "acceleration"]
