"""A command on a host that has no controllers for control groups of version 2, as if it had some: for injection.py.

    limited.py DIRECTORY COMMAND [ARGUMENT...]

Other control files, that every control group has and that take numbers too, stand in for those of the controllers; and
files in DIRECTORY for those by which controllers are handed down.
"""
import sys

STAND_INS = {"memory.max": "cgroup.max.depth", "pids.max": "cgroup.max.descendants"}
HANDED_DOWN = {"cgroup.controllers": "memory pids", "cgroup.subtree_control": ""}     # and what they say at first


def execute(place, command, *words):
    sys.path.insert(0, "/usr/lib/overlay-boot")
    from overlay_boot import files
    opened = files.opened

    def opened_stand_in(path, *arguments, directory=None, **named):
        above, slash, name = path.rpartition("/")
        if name in HANDED_DOWN:
            return opened(f"{place}/{name}", *arguments, **named)
        return opened(f"{above}{slash}{STAND_INS.get(name, name)}", *arguments, directory=directory, **named)

    files.opened = opened_stand_in
    sys.argv = [command, *words]
    with open(command, encoding="utf-8") as launcher:
        code = compile(launcher.read(), command, "exec")
    exec(code, {})  # noqa: S102 (it is the command)


if __name__ == "__main__":
    execute(*sys.argv[1:])
