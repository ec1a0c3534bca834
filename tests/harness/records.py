"""State files that were cut, garbled, or are somebody else's, of subhosts that run, are dead, or hibernate."""
import os
import re
import socket
import subprocess

from ground import control_group
from limits import arrange
from sandbox import patiently

STATES = "/run/overlay-boot"
COMMANDS = (
    ("overlay-ls",), ("overlay-ls", "--json"), ("overlay-go",), ("overlay-go", "{name}", "true"), ("overlay-stop", "{name}"),
    ("overlay-stop", "{conf}"), ("overlay-stop", "--all"), ("overlay-boot", "{conf}"), ("overlay-boot", "--all"),
    ("overlay-share", "{base}/shared:/other", "{name}"), ("overlay-layers",), ("overlay-diff", "{name}"), ("overlay-diff", "{conf}"),
    ("overlay-log", "{name}"), ("overlay-log", "{conf}"), ("overlay-follow", "{name}"), ("overlay-follow", "--all"),
    ("overlay-boot", "--check", "--verbose", "{conf}"), ("overlay-new", "{base}/new"))
OTHER_VERSION = re.compile(rb"^format (?!2$)[0-9]{1,20}$", re.MULTILINE)
NETNS = re.compile(rb"^netns [0-9]+ [0-9]+$", re.MULTILINE)
BEGINNING = re.compile(rb"^(format 2|config .*)\n", re.MULTILINE)
BYTES = b"\0\n :/0a\xff"
LINES = (b"init 1", b"init 0", b"init 99999", b"init -1", b"init x", b"cgroup ..", b"cgroup /", b"cgroup", b"cgroup overlay-boot",
         b"netns 1 2", b"netns", b"netns x y", b"cable:lo 1", b"cable: 1", b"cable:x y", b"format 3", b"format", b"mounts /",
         b"mounts /run/overlay-boot/none", b"mount-point /", b"timeout nan", b"timeout 1e999", b"since nan", b"since -1",
         b"shell 1:1", b"shell x", b"share:1 x", b"share:1 1:1 1 1 /a:/b", b"config", b"config x", b"config /none", b"start /none",
         b"log /dev/full", b"lower:0 /none", b"layer:x", b"value:NAME ../x", b"unknown 1", b"\xc3\xa9 1", b"", b" ")
NEIGHBOURS = ("directory", "link", "loop", "socket", "fifo", "file", "garbage")


def play(round):
    chance = round.random
    one, other = round.subhost(), round.subhost()
    with open(round.ground.list, "w") as file:
        file.write(f"{one.conf}\n")
    arrange(round, one, chance.choice(("running", "hibernating", "dead")))
    arrange(round, other, chance.choice(("nothing", "running")))
    path = f"{STATES}/{one.name}/state"
    if not os.path.exists(path):        # the wrong boot: that has been told
        return
    made = [foreign(round, kind) for kind in NEIGHBOURS if chance.random() < 0.1]
    with open(path, "rb") as file:
        whole = file.read()
    spoiled, is_misled, is_bare = "", False, False
    if chance.random() < 0.05:
        path = as_2_0_0(round, one, path, whole)
    else:
        text = spoil(round, path, whole)
        spoiled, is_misled = one.name, NETNS.findall(text)[-1:] not in ([], NETNS.findall(whole))
        is_bare = not BEGINNING.sub(b"", text)
    round.must_be_listed(spoiled)
    for _ in range(chance.randrange(1, 5)):
        command = chance.choice(COMMANDS)
        words = [word.format(conf=one.conf, name=one.name, base=one.base) for word in command]
        if command[0] == "overlay-stop":
            stop(round, one, path, *words, is_misled=is_misled, is_bare=is_bare)
        else:
            round.run(*words)
            round.must_be_listed(spoiled)
    for entry in made:
        remove(entry)
    clear(round, one, other, path, whole, is_misled, is_bare)


def stop(round, one, path, *words, is_misled=False, is_bare=False):
    """Stop the subhost, maybe others as well: nothing of it may be left if that has succeeded, or taken the record away.

    But what it has left of its network may be, when it has no process, if the record tells of none, and the stop has failed
    then, as one of all may not; or if the record misleads, by telling of another one.  Its control group may be as well, if
    the record is that of a boot at its beginning, to which another group of that name belongs to somebody else.
    """
    was_running = one.name in round.running()
    ended = round.run(*words)
    if os.path.exists(path):
        if ended.status == 0:
            round.fault(f"{round.masked(words)} returns 0, and leaves the record")
        return ended
    left = [line for line in round.left().split("; ") if re.search(rf"\b{one.name}(\d+|\b)", line)]
    if (ended.status or "--all" in words or is_misled) and not was_running:
        left = [line for line in left if not re.search(rf"/run/netns/|^interface in \S+ {one.name}\d+$", line)]
    if is_bare and not was_running:
        left = [line for line in left if line != f"control group {control_group(one.name)}"]
    left = {re.search(rf"\S*\b{one.name}\S*", line)[0] for line in left}
    if one.name in round.running():
        left.add("PID 1")
    if left:
        round.fault(f"{round.masked(words)} returns {ended.status}, and leaves {round.masked(sorted(left))}")
    return ended


def clear(round, one, other, path, whole, is_misled, is_bare):
    """Stop them, by their names: the configuration file that is on record may be another one.

    Only a record of another version can be left then, as the spoiled one can seem to be.
    """
    for each in (other, one):
        ended = stop(round, each, path if each is one else f"{STATES}/{each.name}/state", "overlay-stop", each.name,
                     is_misled=is_misled, is_bare=is_bare)
    if is_bare and os.path.isdir(control_group(one.name)):
        round.note("the control group was left, and is removed")
        os.rmdir(control_group(one.name))
    if os.path.isfile(path):
        with open(path, "rb") as file:
            left = file.read()
        if not OTHER_VERSION.search(left):
            round.note(f"the state file is {left!r}")
            round.fault(f"the record is left: {round.masked([str(ended)])}")
        rewrite(path, whole)
        round.note("the state file is as it was")
    elif os.path.exists(f"/run/netns/{one.name}"):
        round.note("the network namespace was left, and is deleted")
        subprocess.run(["ip", "netns", "delete", one.name], check=True)
        patiently(lambda: one.name not in round.left())


def spoil(round, path, whole):
    """Change the state file, in place: its locks are its inode's.  Return its text."""
    chance = round.random
    text = whole
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        text = chance.choice((cut, garble, zero, insert, swap, drop, repeat, foreign_line, lengthen))(chance, text)
    rewrite(path, text)
    round.note(f"the state file is {text!r}, and was {whole!r}")
    return text


def cut(chance, text):
    return text[:chance.randrange(len(text) + 1)]


def garble(chance, text):
    changed = bytearray(text)
    for _ in range(chance.choice((1, 1, 3, 30))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def zero(chance, text):
    begin = chance.randrange(len(text) + 1)
    end = chance.randrange(begin, len(text) + 1)
    return text[:begin] + bytes(end - begin) + text[end:]


def insert(chance, text):
    at = chance.randrange(len(text) + 1)
    return text[:at] + bytes(chance.choice(BYTES) for _ in range(chance.randrange(1, 5))) + text[at:]


def swap(chance, text):
    lines = text.splitlines(keepends=True)
    chance.shuffle(lines)
    return b"".join(lines)


def drop(chance, text):
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if chance.random() < 0.7)


def repeat(chance, text):
    lines = text.splitlines(keepends=True)
    return text + b"".join(chance.choices(lines, k=3)) if lines else text


def foreign_line(chance, text):
    lines = text.splitlines(keepends=True)
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(LINES) + b"\n")
    return b"".join(lines)


def lengthen(chance, text):
    return text + chance.choice((b"\n" * 5000, b"start " + b"x" * 70000 + b"\n", os.urandom(300)))


def as_2_0_0(round, one, path, whole):
    """Have the state file where 2.0.0 had it, and without the line that it did not write."""
    directory = os.path.dirname(path)
    if os.listdir(directory) != ["state"]:          # 2.0.0 had no hibernation, nor UPPER on a tmpfs
        return path
    aside = f"{STATES}/.aside"
    os.rename(path, aside)
    os.rmdir(directory)
    os.rename(aside, directory)
    rewrite(directory, b"".join(line for line in whole.splitlines(keepends=True) if not line.startswith(b"format")))
    round.note("the state file is 2.0.0's")
    return directory


def rewrite(path, text):
    with open(path, "r+b") as file:
        file.truncate()
        file.write(text)


def foreign(round, kind):
    """Something in the directory of state files that is none of ours."""
    path = f"{STATES}/{'' if round.random.random() < 0.5 else 'z'}{kind}"
    match kind:
        case "directory":
            os.mkdir(path)
        case "link":
            os.symlink("/none", path)
        case "loop":
            os.symlink(path, path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path)
        case "fifo":
            os.mkfifo(path)
        case "file":
            with open(path, "x"):
                pass
        case "garbage":
            with open(path, "xb") as file:
                file.write(os.urandom(100))
    round.note(f"a {kind} in {STATES}")
    return path


def remove(path):
    try:
        os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    except FileNotFoundError:
        pass
    try:
        os.rmdir(STATES)
    except OSError:
        pass
