"""One process at a time in a place: an advisory lock, which the system frees when its owner dies.

No process numbers and no times are compared, so neither a killed owner nor a clock that jumps can
leave a place locked.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Locked", "locked"]

#: What systems say where a file system has no locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF))
#: Where links could lead out of a shared folder they are not followed.
_FLAGS = getattr(os, "O_NOFOLLOW", 0)


class Locked(Exception):
    """Another process is in the place."""


@contextmanager
def locked(
    path: Path, *, wait: bool = True, waiting: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold a lock file, which is gone afterwards.

    Args:
        path: The lock file.
        wait: Whether to wait for another process that holds it, however long that takes.
        waiting: Called once before a wait.

    Yields:
        Whether the lock is held; False where the file system has no locks.

    Raises:
        Locked: Another process holds it, and nobody wants to wait.
        OSError: The file cannot be made.
    """
    descriptor = _acquired(path, wait, waiting)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # First the name, then the lock: whoever waits sees that its file is no longer there.
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                _unlock(descriptor)
            os.close(descriptor)


def _acquired(path: Path, wait: bool, waiting: Callable[[], None] | None) -> int | None:
    """The descriptor of the lock file, locked; None where there are no locks."""
    while True:
        descriptor = _opened(path)
        try:
            if not _lock(descriptor, wait=False):
                if not wait:
                    raise Locked(str(path))
                if waiting is not None:
                    waiting()
                    waiting = None
                _lock(descriptor, wait=True)
            if _is_at(path, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            with suppress(OSError):
                path.unlink()
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the owner before has removed the file that was waited for


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | _FLAGS)  # another user's killed process left it


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file at `path` is the opened one."""
    try:
        there, here = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


if sys.platform == "win32":
    import msvcrt

    _PAUSE = 0.1

    def _lock(descriptor: int, *, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except PermissionError:
                if not wait:
                    return False
                time.sleep(_PAUSE)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        # A forked child may have the descriptor too: closing it here would not be enough.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
