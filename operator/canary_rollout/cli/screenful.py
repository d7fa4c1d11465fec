"""What is drawn again and again has to fit into the rows of the terminal: a taller picture would scroll with each look."""

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text


def fitting(
    console: Console,
    draw: Callable[[frozenset[str]], RenderableType],
    least_first: Sequence[str],
    foot: RenderableType,
    whole: str,
) -> RenderableType:
    """``draw(without)`` with as little left out as the rows allow, and ``foot`` below it.

    Args:
        console: the terminal.
        draw: the picture without the parts that are named.
        least_first: parts that may go, the least important one first.
        foot: lines that stay.
        whole: the command that shows everything.
    """
    picture: RenderableType = Group()
    for gone in range(len(least_first) + 1):
        without = least_first[:gone]
        notes = [Text(f"No room for the rest; all of it: {whole}", "dim")] if without else []
        picture = Group(draw(frozenset(without)), Text(), *notes, foot)
        # One row stays free for the cursor.
        if len(console.render_lines(picture, pad=False)) < console.height:
            break
    return picture
