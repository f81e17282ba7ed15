"""A table as Markdown."""

from collections.abc import Collection


def table_text(head: list[str], lines: list[list[str]], numbers: Collection[int] = ()) -> str:
    """A Markdown table; the columns of `numbers` are set to the right."""
    rule = ["--:" if column in numbers else ":--" for column in range(len(head))]
    safe = [[cell.replace("|", "&#124;") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *safe))
