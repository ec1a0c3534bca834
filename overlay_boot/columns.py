"""Text in columns, as overlay-ls and overlay-layers print it."""


def columns(titles, rows):
    """Lines of text: the titles, in capitals, and below them the rows, each of as many texts."""
    cells = [[title.upper() for title in titles], *rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in cells)
