"""Real services in a subhost behind the default fences, over Debian 12, 13 and sid: by init scripts, and by systemd.

Each is started, asked over the network, restarted, killed, upgraded and stopped.  The systems take ten minutes to make,
each; so it is not for CI.
"""
import http.client
import itertools
import os
import socket
import struct

import pytest
from machine import PATIENCE, read, wait_for, write
from network import done

PACKAGES = (
    "apache2,bind9,bind9-dnsutils,cron,dovecot-imapd,fail2ban,ifupdown,iproute2,iputils-ping,mariadb-server,nftables,nginx,"
    "openssh-client,openssh-server,postfix,postgresql,procps,redis-server,rsyslog,unbound")
# How services are started: what has packages for that, which since Debian 13 are not in one system; the configuration; and the
# command that a service is restarted by.
WAYS = {"scripts": ("orphan-sysvinit-scripts,sysvinit-core", {}, "service {} restart >/dev/null 2>&1"),
        "systemd": ("systemd-sysv", {"INIT": "overlay-systemd"}, "systemctl reset-failed; systemctl restart {}")}
SUITES = ["bookworm", "trixie", "sid"]
HOST, ADDRESS = "10.9.0.1", "10.9.0.2"
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
SLOW = 100              # seconds, for a start of a database, or a minute of cron's

# A package of a later version, of the files of the one that is installed; and its installation.  What a daemon inherits
# that is started again is no pipe of the test's, for the end of which that would wait.
UPGRADE = r"""set -e
of=/tmp/later/$1
mkdir -p $of/DEBIAN
dpkg -L $1 | while read -r path; do
    case $path in /.|/bin|/lib|/lib64|/sbin) continue ;; esac
    if [ -d "$path" ] && [ ! -L "$path" ]; then mkdir -p "$of$path"; elif [ -e "$path" ] || [ -L "$path" ]; then cp -a "$path" "$of$path"; fi
done
for path in /var/lib/dpkg/info/$1.*; do
    case ${path##*.} in list|md5sums) ;; *) cp -p $path $of/DEBIAN/${path##*.} ;; esac
done
dpkg-query -s $1 | sed -e '/^Status:/d' -e '/^Conffiles:/,/^[^ ]/{/^Conffiles:/d;/^ /d}' -e 's/^\(Version: .*\)/\1.1/' >$of/DEBIAN/control
dpkg-deb -Znone --build $of /tmp/$1.deb >/dev/null
printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /tmp/$1.deb >/tmp/said 2>&1 || { cat /tmp/said >&2; exit 1; }
[ -z "$(dpkg --audit)" ]
"""


@pytest.fixture(scope="module", params=SUITES)
def suite(request):
    return request.param


@pytest.fixture(scope="module", params=WAYS)
def way(request):
    return request.param


@pytest.fixture(scope="module")
def debian(debian_root, suite, way):
    return debian_root(way, f"{PACKAGES},{WAYS[way][0]}", seconds=3600, suite=suite)


@pytest.fixture
def bridge(host, machine):
    """The host's end of the network."""
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "address", "add", f"{HOST}/24", "dev", "br0")
    done("ip", "link", "set", "br0", "up")
    machine.look()
    return "br0"


def answer(port, said=b"", size=4096):
    """What comes first from a port, once it was told something; b"" while there is nobody."""
    try:
        with socket.create_connection((ADDRESS, port), PATIENCE) as connection:
            connection.sendall(said)
            return connection.recv(size)
    except OSError:
        return b""


def is_told(port, expected, said=b""):
    return lambda one: expected in answer(port, said)


def is_served(one):
    connection = http.client.HTTPConnection(ADDRESS, timeout=PATIENCE)
    try:
        connection.request("GET", "/asked.html")
        return connection.getresponse().read() == b"answered\n"
    except OSError:
        return False
    finally:
        connection.close()


def is_resolved(one):
    """By a question of www.example.org, A, IN."""
    question = struct.pack(">HHHHHH", 4711, 0x100, 1, 0, 0, 0) + b"\3www\7example\3org\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(1)
        try:
            own.sendto(question, (ADDRESS, 53))
            return bytes([192, 0, 2, 80]) in own.recv(512)
        except OSError:
            return False


def says(expected, *command):
    return lambda one: expected in one.go(*command).stdout


numbers = itertools.count()


def logs(one):
    said = f"are you there, {next(numbers)}?"
    one.go("logger", "-t", "asked", said)
    return f"asked: {said}" in one.go("cat", "/var/log/syslog").stdout


ZONE = "$TTL 60\n@ IN SOA ns root 1 60 60 60 60\n@ IN NS ns\nns IN A 192.0.2.1\nwww IN A 192.0.2.80\n"
PAGE = {"var/www/html/asked.html": "answered\n"}
JAIL = "[DEFAULT]\nbanaction = nftables\n[sshd]\nenabled = true\nbackend = polling\nlogpath = /var/log/auth.log\n"
# The words of START but networking; the package; how the unit that can crash is called; how it is asked; files; and what is
# done before it is asked.
SERVICES = {
    "cron": ("cron", "cron", says("ran", "cat", "/tmp/ran"), {"etc/cron.d/asked": "* * * * * root echo ran >/tmp/ran\n"}, ""),
    "rsyslog": ("rsyslog", "rsyslog", logs, {}, ""),
    "ssh": ("openssh-server", "ssh", is_told(22, b"SSH-2.0"), {}, ""),
    "postfix": ("postfix", "postfix*", is_told(25, b"220 "), {
        "etc/postfix/main.cf": "compatibility_level = 3.6\nmyhostname = mx.example.org\ninet_interfaces = all\n"}, ""),
    "dovecot": ("dovecot-imapd", "dovecot", is_told(143, b"* OK"), {}, ""),
    "nginx": ("nginx", "nginx", is_served, PAGE, ""),
    "apache2": ("apache2", "apache2", is_served, PAGE, ""),
    "mariadb": ("mariadb-server", "mariadb", is_told(3306, b"MariaDB"), {"etc/mysql/mariadb.conf.d/99.cnf": "[mysqld]\nbind-address = *\n"},
                "mariadb -e \"create user asked@'%'\""),
    "postgresql": ("postgresql-common", "postgresql@*", is_told(5432, b"S", struct.pack(">ii", 8, 80877103)), {},
                   "for d in /etc/postgresql/*/main/conf.d; do echo \"listen_addresses = '*'\" >$d/asked.conf; done; $restart"),
    "redis-server": ("redis-server", "redis-server", is_told(6379, b"+PONG", b"PING\r\n"), {},
                     "sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/' /etc/redis/redis.conf; $restart"),
    "named": ("bind9", "named", is_resolved, {
        "etc/bind/named.conf.local": 'zone "example.org" { type master; file "/etc/bind/zone"; };\n', "etc/bind/zone": ZONE}, ""),
    "unbound": ("unbound", "unbound", is_resolved, {
        "etc/unbound/unbound.conf.d/local.conf":
            'server:\n  interface: 0.0.0.0\n  access-control: 0.0.0.0/0 allow\n  local-data: "www.example.org. A 192.0.2.80"\n'}, ""),
    "fail2ban": ("fail2ban", "fail2ban", says("pong", "fail2ban-client", "ping"),
                 {"etc/fail2ban/jail.d/test.conf": JAIL, "var/log/auth.log": ""}, ""),
}


# What scripts need besides: start-stop-daemon(8) --exec, to find a daemon that is another user's; and to start after a crash.
SETTINGS = {"redis-server": {"CAPABILITIES": "+SYS_PTRACE"}}
AFTER_CRASH = {"fail2ban": "rm /run/fail2ban/fail2ban.sock; "}


def state(one, word):
    return next(each["state"] for each in one.row()["services"] or [] if each["name"] == word)


def is_up(one, word):
    return SERVICES[word][2](one) and state(one, word) in ("running", "done")


def crash(one, way, word, unit):
    """All of its processes are killed, and that is seen; systemd starts some again."""
    if way == "scripts":
        [line] = [line for line in read(f"/proc/{one.init}/cgroup").splitlines() if line.startswith("0::")]
        group = next(filter(os.path.isdir, (f"{root}{line[3:]}/{word}.service" for root in CGROUPS)))
        write(f"{group}/cgroup.kill", "1")
        wait_for(lambda: state(one, word) == "ended")
        return
    one.inside("systemctl", "kill", "-s", "KILL", unit)
    if "*" not in unit:
        restarts = one.inside("systemctl", "show", "-PRestart", unit) != "no"
        wait_for(lambda: state(one, word) == ("running" if restarts else "failed"), SLOW)


def is_in_order(one, way):
    return way == "scripts" or one.inside("systemctl", "--failed", "--plain", "--no-legend") == ""


def lives(debian, way, subhost, bridge, word, **settings):
    """All of its life, in a subhost."""
    package, unit, _, files, prepare = SERVICES[word]
    restart = WAYS[way][2].format(word)
    needed, afterwards = (SETTINGS.get(word, {}), AFTER_CRASH.get(word, "")) if way == "scripts" else ({}, "")
    one = subhost(LOWER=debian, START=f"networking {word}", CABLES=f"{bridge}=", **WAYS[way][1], **{**needed, **settings})
    interfaces = f"auto lo eth0\niface lo inet loopback\niface eth0 inet static\n    address {ADDRESS}/24\n"
    for path, text in {**files, "etc/network/interfaces": interfaces}.items():
        one.write(path, text)
    booted = one.boot("--wait", seconds=SLOW)
    assert (booted.returncode, booted.stderr) == (0, ""), one.said()
    if prepare:
        one.sh(prepare.replace("$restart", restart), seconds=SLOW)
    wait_for(lambda: is_up(one, word), SLOW)
    assert is_in_order(one, way)

    one.sh(restart, seconds=SLOW)
    wait_for(lambda: is_up(one, word), SLOW)

    crash(one, way, word, unit)
    one.sh(afterwards + restart, seconds=SLOW)
    wait_for(lambda: is_up(one, word), SLOW)

    before = one.inside("dpkg-query", "-Wf${Version}", package)
    one.sh(UPGRADE.replace("$1", package), seconds=SLOW)
    assert one.inside("dpkg-query", "-Wf${Version}", package) == f"{before}.1"
    wait_for(lambda: is_up(one, word), SLOW)
    assert is_in_order(one, way)
    stopped = one.stop(seconds=SLOW)
    assert (stopped.returncode, stopped.stderr) == (0, "")


@pytest.mark.deadline(600)
@pytest.mark.parametrize("word", SERVICES)
def test_service(debian, way, bridge, subhost, word):
    lives(debian, way, subhost, bridge, word)


@pytest.mark.deadline(600)
@pytest.mark.parametrize("word", ["rsyslog", "ssh", "nginx", "mariadb", "named"])
def test_service_with_users_of_its_own(debian, way, bridge, subhost, word):
    lives(debian, way, subhost, bridge, word, USERNS="auto")
