"""Configuration files, generated and mutated, site-wide defaults, and lists of them: --check, boot, stop."""
import os

NAMES = ("NAME", "BASE", "IMAGE", "LIVE", "UPPER", "WORK", "LOWER", "HIDE", "LAYER", "LAYER_LIMIT", "CABLES", "ADDRESS", "ADDRESS_POOL", "NAT", "PUBLISH", "USERNS", "CAPABILITIES", "SYSTEM_CALLS", "LOWER_MOUNTS", "STAY", "FOLLOW", "OVERLAY",
         "START", "AFTER",
         "PREMOUNT", "POSTMOUNT", "INIT", "LOG", "RAM_SIZE", "SHM_SIZE", "DEVICES", "BOOT_TIMEOUT", "STOP_TIMEOUT", "SHARE", "PIDS_MAX", "MEMORY_MAX", "CPU_MAX",
         "CPUSET_CPUS", "IO_MAX", "NAMES", "export START", "START ", " START", "# START", "")
SITE_WIDE = tuple(name for name in NAMES if name not in ("NAME", "BASE", "IMAGE", "LIVE", "UPPER", "WORK", "AFTER", "PUBLISH"))
VALUES = (
    "", ".", "..", "./", "root", "work", "live", "shared", "mnt", "layer", "layer.tar.gz", "root/", "root/.", "none", "/none", "none/none",
    "root:root", "shared:/data", "shared:", ":/data", ":", "shared:data", "shared:/data/../..", "shared:/", "shared:/.reaper",
    "shared:/proc", "shared/file:/etc/hostname", "/service", "/none start", "ssh", "cron", "-x", "= =", "=", "==", "x=", "=.5", "=.x",
    "=.4095", "=06:20:03:4e:a6:f2", "=ff:ff:ff:ff:ff:ff", "lo=", "=" * 20, "!", "! ", "!none", "!./none", "!./printed x", "!./printed root",
    "!echo", "!false", "!true", "!sh -c 'kill -9 $$'", "!yes", "./premount", "./postmount", "./init", "true", "false", "echo",
    "echo exec /bin/true", "echo exec sleep 0.1", "echo exit 3", "tmpfs:4M", "tmpfs:1", "tmpfs:0", "tmpfs:", "tmpfs:1%", "tmpfs:4k",
    "tmpfs:9999999999T", "10M", "0", "1", "-1", "1.5", "0.1", "1e3", "50%", "101%", "4k", "99999999999999999999", "1 1", "1M 3", "10G 1 1",
    "\u00a0", "\u00a0x", "x\u00a0", "\u2003", "\u0085", "\u2028x", "\u00e9", "\u00e9\u00e9/\u00e9", "\udcff", "\udc80\udcfe", "\x01", "\x1b[31m", "\x7f", "a\tb",
    "a\vb", "'root'", '"root"', "$HOME", "$(id)", "root # all", "#", "x" * 12, "x" * 13, "x" * 255, "x" * 256, "x/" * 2100, "y" * 5000,
    "x" * 70000, "kx0n", "a%d", "a:b", "..a", "-a", "/dev/null", "/dev/full", "/dev/zero", "/dev/loop0 /dev/fuse", "/dev/net/tun", "/proc/self/fd/0", "/proc/1/root", "/proc/self/exe",
    "secrets", "secrets /etc /none", "/", "/etc/passwd /lib", "max", "150%", "1000 2000", "0-1", "0-", "1:0 rbps=1", "/dev/loop0 rbps=max",
    "auto", "yes", "no", "none", "all", "ula", "10.231.0.0/30", "10.231.0.0/16 ula", "fd00::/48", "10.9.8.2/24@10.9.8.1", "eth0:10.9.8.2/31@10.9.8.3",
    "fd00::2/64@fd00::1", "eth1:fd00::3/64", "10.9.8.2", "300.1.1.1/8", "::/0", "8080:80", "80", "127.0.0.1:81:80/udp", "[fd00::1]:80", "0", "65536", "80 80",
    "net_raw", "all -sys_admin", "default +mount", "view", "packages", "restart", "metacopy=on", "volatile", "redirect_dir=off index=on",
    "fifo", "file", "loop", "mnt 1", "kx.img 1", "none.img", "/dev/loop999")
LINES = ("", "\ufeff", "\r", "# comment", "START", "START: ssh", "export START=ssh", "=", "==", "\0", "NAME=\0", "\udcff\udcfe", "[section]",
         "if true; then", "START=none\r", "x" * 70000)
COMMANDS = (("overlay-boot", "{conf}"), ("overlay-boot", "--check", "{conf}"), ("overlay-boot", "--check", "--verbose", "{conf}"),
            ("overlay-boot", "--foreground", "{conf}"), ("overlay-boot", "--shell", "{conf}"), ("overlay-boot", "--all"),
            ("overlay-stop", "{conf}"), ("overlay-go", "{name}", "true"), ("overlay-ls",), ("overlay-diff", "{conf}"), ("overlay-log", "{conf}"),
            ("overlay-follow", "{conf}"), ("overlay-new", "--like", "{conf}", "{base}.new"), ("overlay-new", "--like", "{conf}", "--with-upper", "{base}.new"))
LISTED = ("{conf}", "{conf} ", " {conf}", "{conf}\t{conf}", "{conf} # not", "#{conf}", "", "/none", "none", "/", "/dev/null", "\ufeff{conf}",
          "\udcff", "{conf}\r", "\u00a0{conf}", "{base}", "{base}/fifo.conf", "\0", "/" + "x" * 300, "{conf}/", "/{conf}", "'{conf}'")


def play(round):
    chance = round.random
    one = round.subhost("START=none")
    one.archive()
    for name, target in (("loop", "loop"), ("link", "root"), ("away", "/none")):
        if not chance.randrange(3):
            os.symlink(target, f"{one.base}/{name}")
    text = generated(chance) if chance.random() < 0.6 else mutated(chance, round.parts(one))
    one.write(f"{one.name}.conf", text)
    round.note(f"the configuration is {text[:3000]!r}")
    with open(round.ground.list, "w", errors="surrogateescape") as file:
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            line = chance.choice(LISTED).format(conf=one.conf, base=one.base)
            file.write(f"{line}\n")
            round.note(f"the list has {line[:300]!r}")
    if not chance.randrange(3):
        lines = [assignment(chance, SITE_WIDE if chance.random() < 0.95 else NAMES) for _ in range(chance.choice((1, 1, 2, 5)))]
        round.note(f"the site-wide defaults are {lines!r}"[:3000])
        with open(f"{round.ground.site_wide}/defaults.conf", "w", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)
    checked = round.run("overlay-boot", "--check", one.conf)
    for _ in range(chance.randrange(1, 4)):
        was_clear = not round.left()
        words = [word.format(conf=one.conf, name=one.name, base=one.base) for word in chance.choice(COMMANDS)]
        ended = round.run(*words, typed=b"exit\n")
        if was_clear and words[0] == "overlay-boot" and ended.status and not {"--shell", "--foreground", "--all"} & {*words}:
            round.must_be_clear(f"{' '.join(words)} that fails")
    round.run("overlay-ls", "--json")
    if checked.status:
        round.run("overlay-stop", "--all")
    one.configure("START=none")


def generated(chance):
    """A text of assignments and others, each of which can be anything."""
    lines = ["BASE=.", "START=none"] if chance.random() < 0.7 else []
    for _ in range(chance.choice((0, 1, 1, 2, 4, 10))):
        if chance.random() < 0.1:
            lines.append(chance.choice(LINES))
        else:
            lines.append(assignment(chance, NAMES))
    chance.shuffle(lines)
    return "\n".join(lines) + chance.choice(("\n", ""))


def assignment(chance, names):
    before, after = chance.choice(("", "", "", " ", "\t", "\u00a0")), chance.choice(("", "", "", " ", " x", "\u00a0"))
    return f"{chance.choice(names)}={before}{chance.choice(VALUES)}{after}"


def mutated(chance, lines):
    """A text that boots, with letters changed."""
    text = [*"\n".join(["BASE=.", *lines, ""])]
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(text))
        match chance.randrange(4):
            case 0:
                text[at] = chance.choice("=/:.! \n\t#'\"\\\0\r\u00a0\udcff09aA-")
            case 1:
                text.insert(at, chance.choice("=/:.! \n\t#\u00a0\udcff"))
            case 2:
                del text[at]
            case 3:
                text[at:at] = text[max(0, at - 10):at]
    return "".join(text)
