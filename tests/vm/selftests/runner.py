# SPDX-License-Identifier: GPL-2.0-or-later
"""In the guest: runs one of Linux's Python selftests as it is, but for two things.

Its clock is slow, as the guest is: the tests have rates of packets and seconds in them that are meant for a
CPU which is not emulated. And 6.12's csum.py asks its environment for the name of the remote interface, which
that has in later kernels only.

runner.py SCRIPT REMOTE_INTERFACE, in the script's folder.
"""
import datetime
import os
import runpy
import subprocess
import sys
import time

SLOWNESS = 10
real_sleep, real_monotonic, real_communicate = time.sleep, time.monotonic, subprocess.Popen.communicate
begin = datetime.datetime.now()


class SlowDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return begin + (datetime.datetime.fromtimestamp(time.time()) - begin) / SLOWNESS


def communicate(self, input=None, timeout=None):
    return real_communicate(self, input, timeout and timeout * SLOWNESS)


def main():
    script, remote = sys.argv[1:]
    sys.path.insert(0, ".")
    sys.argv = [script]
    import lib.py
    lib.py.NetDrvEpEnv.remote_ifname = remote
    time.sleep = lambda seconds: real_sleep(seconds * SLOWNESS)
    time.monotonic = lambda: real_monotonic() / SLOWNESS
    subprocess.Popen.communicate = communicate
    datetime.datetime = SlowDatetime
    runpy.run_path(os.path.abspath(script), run_name="__main__")


if __name__ == "__main__":
    main()
