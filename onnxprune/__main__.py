"""``python -m onnxprune``, and the ``onnxprune`` command: loads the command line, then runs it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line on `sys.argv` and return the exit code.

    An interruption while modules are still being loaded is as quiet as a later one.
    """
    try:
        from . import cli
    except KeyboardInterrupt:
        print("onnxprune: interrupted", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
