"""The mounts of a mount namespace, as the kernel lists them: /proc/PID/mountinfo, proc(5)."""
from . import paths


class Mount:
    """A mount: where it is below the root of the process, its own options; device and source of the file system."""

    __slots__ = ("device", "options", "place", "source")

    def __init__(self, words):
        self.device = words[2]
        self.place = paths.unescaped(words[4])
        self.options = words[5].split(",")
        self.source = words[words.index("-", 6) + 2]


def mounts(process="self"):
    """{id: Mount} of all that the process can see."""
    return listed(f"/proc/{process}/mountinfo")


def listed(file):
    """{id: Mount} of what is in a mountinfo file, a path or a descriptor."""
    with open(file, encoding=paths.ENCODING, errors="surrogateescape") as opened:
        lines = [line.split(" ") for line in opened]
    return {int(words[0]): Mount(words) for words in lines}
