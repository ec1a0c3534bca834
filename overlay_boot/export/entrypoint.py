"""The program that an image runs: what PID 1 does in a subhost by overlay-init(8), and overlay-stop(8) from outside.

Any shell will do, as the image need not have anything of ours.  It starts the services of START, stays, reaps, and on a
signal stops them in reverse order, and then all that is left.
"""
from .. import paths, services
from ..config import NO, Config

PATH = "/.entrypoint"
NETWORKING = "networking"           # the network is that of who runs the image
REST = 5                            # seconds, for what does not end, before it is killed

# As process 1 the shell is the parent of all that has lost its own, and kill -1 reaches the others; otherwise those are
# somebody else's.
STOP_FUNCTIONS = """\
stop() {
    case $1 in
    /*) set -- "$1" stop ;;
    *)  [ -e "/etc/init.d/$1" ] || return 0
        set -- service "$1" stop ;;
    esac
    echo "overlay-boot: $*"
    if command -v timeout >/dev/null; then set -- timeout -k 5 "$patience" "$@"; fi
    "$@" </dev/null || echo "cannot $*: exit status $?" >&2
}
is_alone() { [ $$ -ne 1 ] || ! kill -0 -1 2>/dev/null; }
end_all() {
    trap '' TERM INT PWR
    stop_services
    if [ $$ -eq 1 ]; then
        kill -TERM -1
        kill -CONT -1
        left=$((rest * 10))
        while [ $left -gt 0 ] && ! is_alone; do
            sleep 0.1
            left=$((left - 1))
        done
    fi 2>/dev/null
    exit 0
}"""
STAYING = "while :; do sleep 3600 & wait $!; done"
ENDING = "while :; do sleep 1 & wait $!; ! is_alone || exit 0; done"


def text(config: Config) -> bytes:
    """Return the program."""
    start = [word for word in config.start if word != NETWORKING]
    seconds = float(config.stop_timeout)
    lines = ["#!/bin/sh", "# Made by overlay-export(8): starts the services of START, and stops them on SIGTERM.",
             f"# START= {' '.join(config.start) or 'none'}",
             services.limit(config.patience), f"patience={seconds:g} rest={max(1, round(seconds))}",
             services.START_FUNCTION, STOP_FUNCTIONS, "stop_services() {",
             *(f"    stop {paths.quoted(word)}" for word in reversed(start)), "    :", "}",
             "trap end_all TERM INT PWR"]
    if start:
        lines.append(services.MAKE_RUN)
    lines += [f"start {paths.quoted(word)} {paths.quoted(services.name_of(word))}" for word in start]
    lines.append(ENDING if config.stay == NO and start else STAYING)
    return paths.encode("\n".join(lines) + "\n")
