"""State files that were cut, garbled, or are somebody else's, of subhosts that run, are dead, or hibernate."""
import os
import socket

from limits import arrange

STATES = "/run/overlay-boot"
COMMANDS = (
    ("overlay-ls",), ("overlay-ls", "--json"), ("overlay-go",), ("overlay-go", "{name}", "true"), ("overlay-stop", "{name}"),
    ("overlay-stop", "{conf}"), ("overlay-stop", "--all"), ("overlay-boot", "{conf}"), ("overlay-boot", "--all"),
    ("overlay-share", "{base}/shared:/other", "{name}"), ("overlay-layers",))
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
        whole, inode = file.read(), os.fstat(file.fileno()).st_ino
    if chance.random() < 0.05:
        path = as_2_0_0(round, one, path, whole)
    else:
        spoil(round, path, whole)
    for _ in range(chance.randrange(1, 5)):
        command = chance.choice(COMMANDS)
        ended = round.run(*[word.format(conf=one.conf, name=one.name, base=one.base) for word in command])
        if command[0] == "overlay-stop" and "--all" not in command and ended.status == 0 and os.path.exists(path):
            round.fault(f"{round.masked(command)} returns 0, and leaves the record")
    restore(round, path, whole, inode)
    for entry in made:
        remove(entry)


def spoil(round, path, whole):
    """Change the state file, in place: its locks are its inode's."""
    chance = round.random
    text = whole
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        text = chance.choice((cut, garble, zero, insert, swap, drop, repeat, foreign_line, lengthen))(chance, text)
    rewrite(path, text)
    round.note(f"the state file is {text!r}, and was {whole!r}")


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


def restore(round, path, whole, inode):
    """Stop them all.  What a spoiled record has left must be cleared with the right one, unless there is a new one."""
    for one in round.subhosts:
        round.run("overlay-stop", one.conf)
    if not round.left():
        return
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "xb"):
            pass
        round.note("the state file is gone, and things of the subhost are left")
    elif os.stat(path).st_ino != inode:
        return
    rewrite(path, whole)
    round.note("the state file is as it was")


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
