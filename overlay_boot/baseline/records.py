"""The records of dpkg(1) and the tools beside it, for the packages in a layer to be managed with."""
import os
import stat

from .layer import Layer
from .packages import INFO, RECORDS, STATUS
from .system import System

DIRECTORIES = ("", "/info", "/updates", "/parts", "/triggers", "/alternatives")
FILES = ("arch", "available", "diversions", "info/format", "triggers/File")
OF_TOOLS = ("/var/lib/apt/extended_states", "/var/lib/ucf/hashfile", "/var/lib/ucf/registry")


def copy_records(layer: Layer, system: System) -> None:
    """Write dpkg's database, less what administrators put into it, and what apt and ucf remember of the packages."""
    for made in DIRECTORIES:
        layer.make_directory(RECORDS + made)
    layer.make_file(STATUS, os.fsencode(system.database.status))
    for path in (*(f"{RECORDS}/{name}" for name in FILES), *OF_TOOLS):
        copy_file(layer, system, path)
    for name in system.names(f"{RECORDS}/triggers"):
        if name[0].islower():                   # who is interested in it; Lock and Unincorp are of a run
            copy_file(layer, system, f"{RECORDS}/triggers/{name}")
    for name in system.names(f"{RECORDS}/alternatives"):
        copy_file(layer, system, f"{RECORDS}/alternatives/{name}")       # what becomes of them: alternatives.py
    copy_info(layer, system)
    names = {row[0] for row in (*system.accounts.users, *system.accounts.groups)}
    overrides = [line for line in system.lines(f"{RECORDS}/statoverride") if set(line.split()[:2]) <= names]
    layer.make_file(f"{RECORDS}/statoverride", os.fsencode("".join(f"{line}\n" for line in overrides)))


def copy_info(layer: Layer, system: System) -> None:
    """Write the records of each package; in its list of paths no conffile that the installed version has not got."""
    packages = {package.record: package for package in system.database.packages}
    for name in system.names(INFO):
        record, _, kind = name.rpartition(".")
        if record not in packages:
            continue
        if kind == "list" and packages[record].obsolete:
            layer.make_file(f"{INFO}/{name}", os.fsencode("".join(f"{path}\n" for path in packages[record].paths)))
        else:
            copy_file(layer, system, f"{INFO}/{name}")


def copy_file(layer: Layer, system: System, path: str) -> None:
    """Write a regular file of the system as it is, if there is one."""
    found = system.read_file(path)
    if found:
        data, info = found
        layer.make_file(path, data, stat.S_IMODE(info.st_mode))
