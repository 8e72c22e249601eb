"""How ``--help`` looks: two columns under a bold heading, the same on a terminal and in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["print_panel"]

LABEL_WIDTH = 27  # the longest flag, the name of its value, and a gap
MAX_WIDTH = 100


def print_panel(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """Print one group of options or commands (the interface of cyclopts's help formatters)."""
    from rich.table import Table
    from rich.text import Text

    if not panel.entries:
        return
    table = Table.grid()
    table.add_column(width=LABEL_WIDTH, style="cyan", overflow="fold")
    table.add_column(overflow="fold", max_width=MAX_WIDTH - LABEL_WIDTH)
    for entry in panel.entries:
        # cyclopts 4 (the newest for Python 3.10) has no labels with metavars.
        names = getattr(entry, "display_labels_with_metavar", None)
        label = Text("  " + ", ".join(names or (*entry.names, *entry.shorts)))
        table.add_row(label, entry.description or "")
    console.print(Text(f"{panel.title}", style="bold"))
    console.print(table)
    console.print()
