"""A disk whose power can be cut: ext4 in a file on a loop device, and the ioctl that ends it at once.

EXT4_IOC_SHUTDOWN with NOLOGFLUSH stops the file system where it stands: what was not synced, journal
included, never reaches the disk. Remounting replays the journal as after a power cut.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_CAP_SYS_ADMIN = 21  # capabilities(7)
_NOLOGFLUSH = struct.pack("I", 2)
_GONE = 30.0  # seconds
_LOOK = 0.01


def may_mount() -> bool:
    """Whether this process may mount at all: a user may not, and root in a container may not either."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)


def missing() -> str:
    """What a machine lacks that lets us mount and still cannot cut power; "" if nothing."""
    lacking = [tool for tool in ("mount", "umount", "mkfs.ext4") if shutil.which(tool) is None]
    if not Path("/dev/loop-control").exists():
        lacking.append("/dev/loop-control")
    return ", ".join(lacking)


class Disk:
    """One file system. `plug` mounts it, `cut` is the power cut, `unplug` unmounts."""

    def __init__(self, folder: Path, megabytes: int = 1024) -> None:
        self.root = folder / "disk"
        self._image = folder.resolve() / "disk.img"
        self._plugged = False
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))

    def plug(self) -> None:
        """Mount, replaying the journal."""
        _run("mount", "-o", "loop", str(self._image), str(self.root))
        self._plugged = True

    def cut(self) -> None:
        """Cut the power: nothing that is not on the disk now will ever be."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, _NOLOGFLUSH)
        finally:
            os.close(fd)

    def unplug(self) -> None:
        """Unmount, and return when it is gone; all who use it must be dead.

        Any process that was just given a mount namespace of its own holds a copy of ours for a while. Mounted
        again meanwhile, it would be the same file system, still shut down.
        """
        if not self._plugged:
            return
        _run("umount", str(self.root))
        self._plugged = False
        give_up_at = time.monotonic() + _GONE
        while self._in_use():
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"something holds {self._image} mounted")
            time.sleep(_LOOK)

    def _in_use(self) -> bool:
        for each in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):  # it has just gone
                if each.read_text().rstrip("\n") == str(self._image):
                    return True
        return False


class Shelf:
    """A place for what only processes use and can lose: it has no power to be cut."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "shelf"
        self.root.mkdir()

    def plug(self) -> None:
        """Nothing is mounted."""

    def cut(self) -> None:
        """Whoever writes is killed next."""

    def unplug(self) -> None:
        """Nothing is mounted."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
