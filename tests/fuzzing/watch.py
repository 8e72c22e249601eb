"""What Python code opens, moves and runs while a case is on: nothing outside its folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["guarded"]

#: Events that change files, with the positions of the paths in their arguments.
CHANGES = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (0, 1),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,),
    "shutil.rmtree": (0,),
}  # fmt: skip
#: Events that mean code of the file is run.
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
             "socket.connect")  # fmt: skip
#: Paths that a model's location may name, and that nothing may open.
SECRETS = ("/etc/passwd", "secret.bin", "/dev/zero")

_watching: list[tuple[str, list[str]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    root, found = _watching[-1]
    if event == "open":
        path, mode, flags = (*arguments, None, None)[:3]
        if not isinstance(path, (str, bytes)):
            return
        text = os.fsdecode(path)
        writes = bool(flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        writes = writes or bool(mode and set(str(mode)) & set("wax+"))
        if (writes and _outside(text, root)) or text.endswith(SECRETS):
            found.append(f"opens {_short(text, root)} ({'write' if writes else 'read'})")
    elif event in CHANGES:
        for position in CHANGES[event]:
            if _outside(os.fsdecode(arguments[position]), root):
                found.append(f"{event} {_short(os.fsdecode(arguments[position]), root)}")
    elif event in FORBIDDEN:
        found.append(f"{event} {arguments[:1]}"[:200])


def _outside(path: str, root: str) -> bool:
    whole = os.path.abspath(path)
    return (
        not whole.startswith(root)
        and whole not in (os.devnull, "/proc/self/clear_refs")
        and ("__pycache__" not in whole)
    )


def _short(path: str, root: str) -> str:
    return path.replace(root, "...")


@contextmanager
def guarded(folder: Path) -> Iterator[list[str]]:
    """Collect what is done outside `folder`."""
    if not getattr(sys, "_onnxprune_fuzzing_hook", False):
        sys.addaudithook(_hook)
        sys._onnxprune_fuzzing_hook = True  # type: ignore[attr-defined]
    found: list[str] = []
    _watching.append((os.path.abspath(folder), found))
    try:
        yield found
    finally:
        _watching.pop()
