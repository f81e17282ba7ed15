"""A bar on a terminal; torch is not needed for it."""

from typing import TextIO


class Bar:
    """One bar at the foot of a terminal, drawn twice a second at most.

    Args:
        stream: the terminal.
        ticking: drawn by a thread of its own; else when something is shown or said, as suits who forks.
    """

    def __init__(self, stream: TextIO, *, ticking: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn
        from rich.progress import Progress
        from rich.progress import TextColumn

        columns = [BarColumn(), TextColumn("{task.description}", markup=False)]
        console = Console(file=stream)
        self.progress = Progress(
            *columns,
            console=console,
            refresh_per_second=2,
            transient=True,
            auto_refresh=ticking,
            redirect_stdout=ticking,
            redirect_stderr=ticking,
        )

    def start(self, total: float) -> None:
        self.task = self.progress.add_task("", total=total)
        self.progress.start()

    def show(self, done: float, text: str) -> None:
        self.progress.update(self.task, completed=done, description=text, refresh=True)

    def say(self, text: str) -> None:
        """One line above the bar, which stays."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.progress.stop()


def duration(seconds: float) -> str:
    """59 s, 59 min, 2.5 h, 1,200 h."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3570:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 99.95 else f"{hours:,.0f} h"
