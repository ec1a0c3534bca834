"""Packages that are made on the spot, and a system of a few programs that dpkg can install them in."""
import hashlib
import os
import shutil
import stat

from machine import run, small_root, write

PROGRAMS = ("dpkg", "dpkg-deb", "dpkg-split", "dpkg-query", "dpkg-trigger", "dpkg-divert", "dpkg-statoverride",
            "update-alternatives", "tar", "diff", "ldconfig", "start-stop-daemon", "chmod", "chown", "ln", "sed", "grep")
RECORDS = "var/lib/dpkg"


def system(directory):
    """A root file system without a package, in which dpkg works."""
    small_root(directory)
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
        shutil.copy(found, f"{directory}/usr/bin/{program}")
        for word in run("ldd", found).stdout.split():
            if word[0] == "/" and not os.path.exists(f"{directory}{word}"):
                os.makedirs(os.path.dirname(f"{directory}{word}"), exist_ok=True)
                shutil.copy(os.path.realpath(word), f"{directory}{word}")
    for made in ("info", "updates", "triggers", "alternatives", "parts"):
        os.makedirs(f"{directory}/{RECORDS}/{made}")
    for made in ("status", "available", "lock", "lock-frontend", "diversions", "statoverride", "triggers/File", "triggers/Lock"):
        write(f"{directory}/{RECORDS}/{made}")
    write(f"{directory}/{RECORDS}/info/format", "1\n")
    for made in ("etc/alternatives", "var/cache", "debs"):
        os.makedirs(f"{directory}/{made}", exist_ok=True)
    os.chmod(f"{directory}/tmp", 0o1777)
    return directory


def deb(root, name, version, files=None, scripts=None, conffiles=(), triggers="", modes=None, **fields):
    """Make a package; its path in the system: files are {path: content}, scripts {maintainer script: text}, modes {path: mode}."""
    place = f"{root}/debs/{name}_{version}"
    for path, content in {f"usr/share/doc/{name}/version": version, **(files or {})}.items():
        write(f"{place}/{path}", content, (modes or {}).get(path, 0o755 if "bin/" in path else 0o644))
    control = {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "nobody <nobody@localhost>",
               "Description": "made for a test", **{field.replace("_", "-"): value for field, value in fields.items()}}
    write(f"{place}/DEBIAN/control", "".join(f"{field}: {value}\n" for field, value in control.items()))
    for script, text in (scripts or {}).items():
        write(f"{place}/DEBIAN/{script}", f"#!/bin/sh\nset -e\n{text}\n", 0o755)
    if conffiles:
        write(f"{place}/DEBIAN/conffiles", "".join(f"/{path}\n" for path in conffiles))
    if triggers:
        write(f"{place}/DEBIAN/triggers", triggers)
    done = run("dpkg-deb", "-Znone", "--build", place, f"{place}.deb")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(place)
    return f"/debs/{name}_{version}.deb"


def dpkg(root, *words, status=0):
    """Have dpkg work on a system."""
    done = run("chroot", root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", *words)
    assert done.returncode == status, done.stdout + done.stderr


def status(text):
    """{(package, architecture): {field: value}} of a status file."""
    found = {}
    for stanza in text.split("\n\n"):
        fields, name = {}, ""
        for line in stanza.splitlines():
            if line[:1] == " ":
                fields[name] += "\n" + line
            else:
                name, _, value = line.partition(":")
                fields[name] = value
        if fields:
            found[fields["Package"], fields["Architecture"]] = fields
    return found


# What no two systems have in common, or what tells of the past.
PASSING = ("/proc", "/sys", "/dev", "/run", "/tmp", "/debs", "/.reaper", "/etc/hostname", "/etc/hosts", "/etc/network",
           f"/{RECORDS}/status", f"/{RECORDS}/lock", f"/{RECORDS}/updates", f"/{RECORDS}/available", f"/{RECORDS}/triggers/Lock",
           f"/{RECORDS}/triggers/Unincorp", f"/{RECORDS}/diversions-old", f"/{RECORDS}/statoverride-old", f"/{RECORDS}/info/format",
           "/var/log", "/var/cache/ldconfig", "/etc/ld.so.cache")


def seen(root, passing=()):
    """{path: what it is} of all files of a system, but for those in PASSING and these."""
    found = {}
    for folder, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = os.path.join(folder, name)
            inside = path[len(root.rstrip("/")):]
            if inside.startswith((*PASSING, *passing)):
                if name in directories:
                    directories.remove(name)
                continue
            info = os.lstat(path)
            what = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    what.append(hashlib.md5(file.read()).hexdigest())
            elif stat.S_ISLNK(info.st_mode):
                what = [os.readlink(path)]
            found[inside] = what
    return found
