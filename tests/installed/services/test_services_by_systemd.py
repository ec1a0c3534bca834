"""Real services, each by systemd as PID 1 in a subhost behind the default fences, over Debian 12, 13 and sid.

Each is started, asked over the network, restarted, killed, upgraded and stopped.  The systems take ten minutes to make,
each; so it is not for CI.
"""
import http.client
import socket
import struct

import pytest
from machine import PATIENCE, wait_for
from network import done

PACKAGES = (
    "apache2,bind9,bind9-dnsutils,cron,dovecot-imapd,fail2ban,ifupdown,iproute2,iputils-ping,mariadb-server,nftables,nginx,"
    "openssh-client,openssh-server,postfix,postgresql,procps,redis-server,rsyslog,systemd-sysv,unbound")
SUITES = ["bookworm", "trixie", "sid"]
HOST, ADDRESS = "10.9.0.1", "10.9.0.2"
SLOW = 100              # seconds, for a start of a database, or a minute of cron's

# A package of a later version, of the files of the one that is installed; and its installation.
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
dpkg-deb --build $of /tmp/$1.deb >/dev/null
DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /tmp/$1.deb
[ -z "$(dpkg --audit)" ]
"""


@pytest.fixture(scope="module", params=SUITES)
def debian(debian_root, request):
    return debian_root("systemd", PACKAGES, seconds=3600, suite=request.param)


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


def logs(one):
    one.go("logger", "-t", "asked", "are you there?")
    said = one.go("sh", "-c", "grep -c 'asked: are you there' /var/log/syslog; rm -f /var/log/syslog; systemctl kill -s HUP rsyslog")
    return said.stdout.strip() not in ("", "0")


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
                   "for d in /etc/postgresql/*/main/conf.d; do echo \"listen_addresses = '*'\" >$d/asked.conf; done; systemctl restart postgresql"),
    "redis-server": ("redis-server", "redis-server", is_told(6379, b"+PONG", b"PING\r\n"), {},
                     "sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/' /etc/redis/redis.conf; systemctl restart redis-server"),
    "named": ("bind9", "named", is_resolved, {
        "etc/bind/named.conf.local": 'zone "example.org" { type master; file "/etc/bind/zone"; };\n', "etc/bind/zone": ZONE}, ""),
    "unbound": ("unbound", "unbound", is_resolved, {
        "etc/unbound/unbound.conf.d/local.conf":
            'server:\n  interface: 0.0.0.0\n  access-control: 0.0.0.0/0 allow\n  local-data: "www.example.org. A 192.0.2.80"\n'}, ""),
    "fail2ban": ("fail2ban", "fail2ban", says("pong", "fail2ban-client", "ping"),
                 {"etc/fail2ban/jail.d/test.conf": JAIL, "var/log/auth.log": ""}, ""),
}


def state(one, word):
    return next(each["state"] for each in one.row()["services"] or [] if each["name"] == word)


@pytest.mark.deadline(600)
@pytest.mark.parametrize("word", SERVICES)
def test_service(debian, bridge, subhost, word):
    package, unit, is_well, files, prepare = SERVICES[word]
    one = subhost(LOWER=debian, INIT="overlay-systemd", START=f"networking {word}", CABLES=f"{bridge}=")
    interfaces = f"auto lo eth0\niface lo inet loopback\niface eth0 inet static\n    address {ADDRESS}/24\n"
    for path, text in {**files, "etc/network/interfaces": interfaces}.items():
        one.write(path, text)
    booted = one.boot("--wait", seconds=SLOW)
    assert (booted.returncode, booted.stderr) == (0, ""), one.said()
    if prepare:
        one.sh(prepare, seconds=SLOW)
    wait_for(lambda: is_well(one), SLOW)
    assert one.inside("systemctl", "--failed", "--plain", "--no-legend") == ""

    one.inside("systemctl", "restart", word, seconds=SLOW)
    wait_for(lambda: is_well(one), SLOW)

    one.inside("systemctl", "kill", "-s", "KILL", unit)
    if "*" not in unit:
        restarts = one.inside("systemctl", "show", "-PRestart", unit) != "no"
        wait_for(lambda: state(one, word) == ("running" if restarts else "failed"), SLOW)
    one.sh(f"systemctl reset-failed; systemctl restart {word}", seconds=SLOW)
    wait_for(lambda: is_well(one), SLOW)

    before = one.inside("dpkg-query", "-Wf${Version}", package)
    one.sh(UPGRADE.replace("$1", package), seconds=SLOW)
    assert one.inside("dpkg-query", "-Wf${Version}", package) == f"{before}.1"
    wait_for(lambda: is_well(one) and state(one, word) in ("running", "done"), SLOW)
    assert one.inside("systemctl", "--failed", "--plain", "--no-legend") == ""
    one.stopped(seconds=SLOW)
