"""The table of the variables: what overlay-boot.conf(5) says of each, in its order."""
import os

from .columns import columns
from .errors import Failure

FILE = os.path.join(os.path.dirname(__file__), "variables")     # setup.py writes it, from the manual


def table() -> str:
    """Return a line for each variable: its name, its default, and what it is."""
    try:
        with open(FILE, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except FileNotFoundError:
        raise Failure(f"there is no {FILE}: overlay-boot was not built from its source with the manual") from None
    return columns(("variable", "default", "meaning"), rows)
