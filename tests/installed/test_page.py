"""The second example of the README: a page is served in three commands, by a package that is installed in the subhost.

The world is a network namespace with a name server and a mirror of the test's own, so that nothing else is asked.
"""
import contextlib
import functools
import hashlib
import http.server
import re
import socket
import struct
import threading
import urllib.request

import debs
import pytest
from machine import TREE, new_name, read, run, wait_for
from network import done, within

pytestmark = pytest.mark.usefixtures("host")

HOST, WORLD = "203.0.113.1", "203.0.113.9"
SERVICE = """\
### BEGIN INIT INFO
# Provides: page
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
case $1 in
start) python3 -m http.server -d /usr/share/page 80 >/dev/null 2>&1 & ;;
esac"""


@pytest.fixture
def mirror(directory, machine):
    """A network namespace with a name server, which has one address for all names, and with a mirror, of one package."""
    name = new_name()
    done("ip", "netns", "add", name)
    done("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", name)
    done("ip", "address", "add", f"{HOST}/24", "dev", "up0")
    done("ip", "link", "set", "up0", "up")
    done("ip", "-n", name, "address", "add", f"{WORLD}/24", "dev", "eth0")
    for interface in ("eth0", "lo"):
        done("ip", "-n", name, "link", "set", interface, "up")
    machine.look()
    files = packages(f"{directory}/mirror")
    with within(name):
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((WORLD, 53))
        handler = functools.partial(Quiet, directory=files)
        web = http.server.ThreadingHTTPServer((WORLD, 80), handler)
    threads = [threading.Thread(target=resolve, args=(names,)), threading.Thread(target=web.serve_forever)]
    for thread in threads:
        thread.start()
    yield name
    web.shutdown()
    web.server_close()
    with contextlib.suppress(OSError):
        names.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    names.close()
    done("ip", "link", "delete", "up0")
    done("ip", "netns", "delete", name)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def resolve(server):
    """Answer each question for an address by the world's."""
    while True:
        question, caller = server.recvfrom(512)
        if not question:                # shut down
            return
        end = question.index(b"\0", 12) + 5
        is_address = question[end - 4:end - 2] == b"\0\1"
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(WORLD) if is_address else b""
        server.sendto(question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_address), 0, 0) + question[12:end] + answer, caller)


def packages(place):
    """The directory of a flat repository with one package, whose service serves a page."""
    made = debs.deb(place, "page", "1", {"usr/share/page/index.html": "a page\n", "etc/init.d/page": f"#!/bin/sh\n{SERVICE}\n"},
                    Architecture="all", scripts={"postinst": "chmod 755 /etc/init.d/page\nupdate-rc.d page defaults\ninvoke-rc.d page start"})
    with open(place + made, "rb") as file:
        data = file.read()
    control = done("dpkg-deb", "--field", place + made)
    with open(f"{place}/Packages", "w") as file:
        file.write(f"{control.rstrip()}\nFilename: .{made}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n")
    return place


def commands():
    """The lines of the README that make and boot the subhost."""
    text = read(f"{TREE}/README.md").partition("## A page for the world")[2].partition("\n## ")[0]
    return re.findall("^    # (.*)$", text, re.MULTILINE)


def test_a_page_is_served(subhost, mirror):
    one = subhost()
    made, booted, installed = commands()
    assert (booted, installed) == ("overlay-boot /opt/web/web.conf", "overlay-go web apt-get -y install nginx-light")
    command, place, *words = made.split()
    values = dict(word.split("=", 1) for word in words)
    assert (command, place, values) == ("overlay-new", "/opt/web", {"START": "nginx", "NAT": "yes", "PUBLISH": "8080:80"})
    one.configure(**{**values, "START": "page"})
    # As on every machine that is booted by an init system, and starts what is installed.
    for program, content in (("init", ":"), ("runlevel", 'echo "$PREVLEVEL $RUNLEVEL"'), ("policy-rc.d", ":")):
        one.write(f"usr/sbin/{program}", f"#!/bin/sh\n{content}\n", 0o755)
    one.write("etc/apt/sources.list", "deb [trusted=yes] http://mirror.example/ ./\n")
    one.write("etc/resolv.conf", f"nameserver {WORLD}\n")
    assert run("overlay-boot", one.conf).returncode == 0           # the service is not installed yet
    for part in ("sources.list.d", "apt.conf.d"):
        one.inside("rm", "-rf", f"/etc/apt/{part}")
    for words in (["update"], ["-y", "install", "page"]):
        ended = one.go("apt-get", *words)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def page():
        with contextlib.suppress(OSError):
            return urllib.request.urlopen("http://127.0.0.1:8080/", timeout=5).read()

    assert wait_for(page) == b"a page\n"
    one.stopped()
    one.booted()
    assert wait_for(page) == b"a page\n"
