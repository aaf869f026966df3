"""A Debian of our own, booted with systemd in a container: systemd-nspawn over what debootstrap filled."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import CACHE, ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("systemd", "systemd-sysv", "dbus", "procps")
RELEASE = os.environ.get("STTD_RELEASE", "bookworm")


def filled() -> Path:
    """The root of a fresh machine, from a copy that is made once."""
    run(str(ROOT / "tools/debian_root.sh"), RELEASE)
    root = CACHE / "booted"
    run("rm", "-rf", str(root))
    run("cp", "-a", "--reflink=auto", str(CACHE / RELEASE), str(root))
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    inside = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "-D", str(root))
    install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends"
    run(*inside, "--setenv=DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"{install} {' '.join(PACKAGES)}")
    shutil.copy(package(), root / "opt")
    shutil.copytree(ROOT / "tests/plugins", root / "opt/plugins")
    shutil.copytree(CACHE / "models/vosk/vosk-small-ko", root / "media/stick/vosk-small-ko")
    return root


def package() -> Path:
    """The newest that `make deb` has made for this machine."""
    arch = run("dpkg", "--print-architecture").strip()
    return max((ROOT / "dist").glob(f"sttd_*_{arch}.deb"), key=lambda path: path.stat().st_mtime)


def run(*command: str, check: bool = True, timeout: float = 600) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Machine:
    """A booted one."""

    root: Path
    init: int

    def run(self, *command: str, check: bool = True, timeout: float = 600, errors: bool = False) -> str:
        """Run a command in it; what it prints, with `errors` also on standard error."""
        if errors:
            command = ("sh", "-c", '"$@" 2>&1', "sh", *command)
        within = ("nsenter", "--all", "--target", str(self.init), "--wd", "env", "-i")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        certificates = "PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
        return run(*within, path, certificates, *command, check=check, timeout=timeout)

    def show(self, property_name: str, unit: str = "sttd.service") -> str:
        return self.run("systemctl", "show", "--value", "-p", property_name, unit).strip()

    def journal(self) -> str:
        return self.run("journalctl", "-u", "sttd.service", "-o", "cat", "--no-pager")

    def wait_for(self, property_name: str, value: str, seconds: float = 60) -> None:
        wait_until(lambda: self.show(property_name) == value, seconds, f"{property_name}={value}")

    def power_off(self) -> None:
        self.run("systemctl", "poweroff", check=False)
        wait_until(lambda: not Path(f"/proc/{self.init}").exists(), 60, "the machine to be off")

    @contextmanager
    def memory_limited(self, pid: int, size: int) -> Iterator[None]:
        """Where systemd in the container has no memory controller (cgroups of version 1), the limit is set here."""
        group = Path("/sys/fs/cgroup/memory/sttd-booted")
        if not group.parent.exists():
            yield
            return
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(size))
        (group / "cgroup.procs").write_text(str(self.outside(pid)))
        yield
        for left in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(left)
        group.rmdir()

    def outside(self, pid: int) -> int:
        """The number that a process in the machine has here."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                found = re.search(r"^NSpid:\t(\d+)\t(\d+)$", status.read_text(), re.MULTILINE)
                if found and int(found[2]) == pid and self.machine_of(int(found[1])) == self.machine_of(self.init):
                    return int(found[1])
        raise AssertionError(f"no process {pid} in the machine")

    @staticmethod
    def machine_of(pid: int) -> str:
        return os.readlink(f"/proc/{pid}/ns/pid")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


@contextmanager
def booted(root: Path, *options: str) -> Iterator[Machine]:
    log = root.with_suffix(".log").open("w")
    process = subprocess.Popen(
        [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            *options,
            "-b",
            "-D",
            str(root),
        ],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )
    inits: list[int] = []
    try:
        wait_until(lambda: children(process.pid), 30, "the machine's init")
        inits = children(process.pid)
        machine = Machine(root, inits[0])
        wait_until(lambda: "running" in state(machine) or "degraded" in state(machine), 90, "the machine to be up")
        yield machine
        if process.poll() is None:
            machine.run("systemctl", "poweroff", check=False)
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            for pid in (*inits, process.pid):  # a machine outlives systemd-nspawn
                os.kill(pid, signal.SIGKILL)
            process.wait()
        log.close()


def state(machine: Machine) -> str:
    time.sleep(0.3)
    return machine.run("systemctl", "is-system-running", check=False)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
