"""What must go on working behind the fences: each service is started in a subhost as it comes, and asked for what it is for.

The subhosts are over a Debian system with all of these, made for this, which takes ten minutes; so it is not for CI.
Their network is a bridge of the test's own host.
"""
import contextlib
import http.client
import imaplib
import re
import smtplib
import ssl
import subprocess
import time

import pytest
from machine import PATIENCE, read, run, wait_for, write
from network import done, links, pings

PACKAGES = (
    "apache2,bind9,bind9-dnsutils,cron,crun,dhcpcd-base,dovecot-imapd,fail2ban,ifupdown,iproute2,iputils-ping,isc-dhcp-client,"
    "isc-dhcp-server,mariadb-server,nftables,nginx-light,openssh-client,openssh-server,openssl,openvpn,orphan-sysvinit-scripts,"
    "podman,postfix,postgresql,procps,rsyslog,strace,sudo,tmux,traceroute,unbound")
# Packages of Debian's own, for apt to install from a directory.
KEPT = 'chroot "$1" sh -ec "mkdir /srv/packages; cd /srv/packages; apt-get download hello openssh-server"'
HOST, NETWORK = "10.9.0.1", "10.9.0"
FIRST, SECOND = f"{NETWORK}.2", f"{NETWORK}.3"
SLOW = 60               # seconds, for a start of a database
MINUTE = 100            # seconds: cron(8) looks once a minute
NOW = 2 * 60            # seconds that clocks may differ, on a machine that is as busy as that


@pytest.fixture(scope="session")
def debian(debian_root):
    return debian_root("services", PACKAGES, KEPT, seconds=3600)


@pytest.fixture
def bridge(host, machine):
    """The host's end of the network."""
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "address", "add", f"{HOST}/24", "dev", "br0")
    done("ip", "link", "set", "br0", "up")
    machine.look()
    return "br0"


@pytest.fixture(params=["no", "auto"])
def users(request):
    """USERNS: every test is run without a user namespace, and in one."""
    return request.param


@pytest.fixture
def server(host, subhost, debian, users):
    """A subhost of the test's own host, with default fences and files of its own, that has started these services."""
    def make(*services, files=(), **settings):
        one = subhost(LOWER=debian, START=" ".join(services) or "none", USERNS=users, **settings)
        for path, text in dict(files).items():
            one.write(path, text)
        return one.booted(seconds=SLOW)
    return make


@pytest.fixture
def cabled(bridge, server):
    """The same, in the network: cabled(address, service, ...)."""
    def make(address, *services, files=(), **settings):
        stanza = f"inet static\n    address {address}/24" if address else "inet manual"
        interfaces = f"auto lo eth0\niface lo inet loopback\niface eth0 {stanza}\n"
        # cron: a job in the background that ifup(8) has left is no service that keeps the subhost up
        return server("networking", *(services or ["cron"]), files={**dict(files), "etc/network/interfaces": interfaces},
                      CABLES=f"{bridge}=", **settings)
    return make


def add_user(one, name="postie", password="secret"):
    one.sh(f"useradd -m -s /bin/bash {name}; echo {name}:{password} | chpasswd")


def eventually(one, text, expected, seconds=PATIENCE):
    """A shell in it prints this, in the end; all that it prints."""
    def said():
        found = one.go("/bin/sh", "-c", text)
        return found.stdout if expected in found.stdout else None
    return wait_for(said, seconds, f"{expected!r} from {text}")


def test_rsyslog(server):
    one = server("rsyslog")
    one.sh("logger -t asked 'are you there?'")
    eventually(one, "cat /var/log/syslog", "asked: are you there?")
    # It is refused the kernel's log: one that is empty it would read without a pause.
    eventually(one, "cat /var/log/syslog", "cannot open kernel log")


@pytest.mark.parametrize("user", ["root", "postie"])
def test_cron(server, user):
    one = server("cron")
    add_user(one)
    one.sh(f"crontab -u {user} -", input="* * * * * id -un >/tmp/ran\n")
    eventually(one, "cat /tmp/ran", user, MINUTE)


# Logins

@contextlib.contextmanager
def askpass(directory, password):
    """An environment in which ssh(1) takes a password from a program."""
    yield {"SSH_ASKPASS": write(f"{directory}/askpass", f"#!/bin/sh\necho {password}\n", 0o755), "SSH_ASKPASS_REQUIRE": "force"}


def ssh(*words, **how):
    return run("ssh", "-F", "none", "-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no", "-oLogLevel=ERROR",
               f"-oConnectTimeout={PATIENCE}", *words, **how)


def logged_in(one, directory):
    """What postie is told who logs in by ssh(1), and becomes root by sudo(8) and by su(1)."""
    add_user(one)
    one.sh("echo 127.0.1.1 $(hostname) >>/etc/hosts; echo 'postie ALL=(ALL) ALL' >/etc/sudoers.d/postie; echo root:other | chpasswd")
    with askpass(directory, "secret") as env:
        login = ssh("-tt", f"postie@{FIRST}", "id -un; tty; echo secret | sudo -Sp '' id -un; echo other | su -c 'id -un'", env=env)
    assert login.returncode == 0, login
    return login.stdout.replace("Password: ", "").split()


def test_ssh_with_sudo_and_su(cabled, directory):
    user, tty, *become = logged_in(cabled(FIRST, "ssh"), directory)
    assert user == "postie" and re.fullmatch(r"/dev/pts/\d+", tty) and become == ["root", "root"]


def test_ssh_with_a_wrong_password(cabled, directory):
    one = cabled(FIRST, "ssh")
    add_user(one)
    with askpass(directory, "wrong") as env:
        refused = ssh(f"postie@{FIRST}", "id", env=env)
    assert refused.returncode == 255 and "Permission denied" in refused.stderr


@pytest.fixture
def login():
    """Who runs the test has logged in."""
    set_login(4321)
    yield
    set_login(2 ** 32 - 1)


def set_login(uid):
    with open("/proc/self/loginuid", "w") as file:
        file.write(str(uid))


def test_ssh_where_somebody_has_booted_who_has_logged_in(cabled, directory, login):
    """To pam_loginuid(8) of the subhost that is nobody."""
    one = cabled(FIRST, "ssh", "cron")
    add_user(one)
    with askpass(directory, "secret") as env:
        assert ssh(f"postie@{FIRST}", "id -un", env=env).stdout == "postie\n"
    one.inside("service", "ssh", "restart")
    with askpass(directory, "secret") as env:
        assert ssh(f"postie@{FIRST}", "id -un", env=env).stdout == "postie\n"


def test_ssh_by_key(cabled, directory):
    one = cabled(FIRST, "ssh")
    add_user(one)
    done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/key")
    one.sh("umask 77; mkdir ~postie/.ssh; cat >~postie/.ssh/authorized_keys; chown -R postie: ~postie/.ssh",
           input=read(f"{directory}/key.pub"))
    assert ssh("-i", f"{directory}/key", f"postie@{FIRST}", "id -un").stdout == "postie\n"


# Mail

POSTFIX = """\
compatibility_level = 3.6
myhostname = mx.example.org
mydestination = example.org, localhost
mynetworks = 127.0.0.0/8
inet_interfaces = all
maillog_file = /var/log/mail.log
"""
MESSAGE = "From: <alice@example.net>\r\nTo: <postie@example.org>\r\nSubject: asked\r\n\r\nHello.\r\n"


def test_postfix_and_dovecot(cabled):
    one = cabled(FIRST, "rsyslog", "postfix", "dovecot", files={"etc/postfix/main.cf": POSTFIX, "etc/aliases": "", "etc/resolv.conf": ""})
    add_user(one)
    with smtplib.SMTP(FIRST, local_hostname="alice.example.net", timeout=PATIENCE) as smtp:
        smtp.sendmail("alice@example.net", ["postie@example.org"], MESSAGE)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("alice@example.net", ["bob@example.com"], MESSAGE)
    eventually(one, "cat /var/log/mail.log", "status=sent (delivered to mailbox)")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    imap = imaplib.IMAP4(FIRST, timeout=PATIENCE)
    imap.starttls(context)
    with pytest.raises(imaplib.IMAP4.error):
        imap.login("postie", "wrong")
    imap.login("postie", "secret")
    assert imap.select("INBOX") == ("OK", [b"1"])
    assert b"Subject: asked" in imap.fetch("1", "(RFC822)")[1][0][1]
    imap.logout()


# Web

@pytest.mark.parametrize("service", ["nginx", "apache2"])
def test_web_server(cabled, service):
    cabled(FIRST, service, files={"var/www/html/asked.html": "answered\n"})
    connection = http.client.HTTPConnection(FIRST, timeout=PATIENCE)
    connection.request("GET", "/asked.html")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"answered\n")
    assert service.rstrip("2") in answer.headers["Server"].lower()
    connection.close()


# Databases

def test_mariadb(server):
    one = server("mariadb")
    one.sh("mariadb", input="create database x; use x; create table asked (answer int) engine=innodb; insert into asked values (42);")
    assert one.inside("mariadb", "-BNe", "select answer from x.asked") == "42"


def test_postgresql(server):
    one = server("postgresql")
    one.inside("psql", "-qc", "create table asked as select 42 as answer", user="postgres")
    assert one.inside("psql", "-qAtc", "select answer from asked", user="postgres") == "42"


# Names

ZONE = "$TTL 60\n@ IN SOA ns root 1 60 60 60 60\n@ IN NS ns\nns IN A 192.0.2.1\nwww IN A 192.0.2.80\n"


@pytest.mark.parametrize("service, files", [
    ("named", {"etc/bind/named.conf.local": 'zone "example.org" { type master; file "/etc/bind/zone"; };\n', "etc/bind/zone": ZONE}),
    ("unbound", {"etc/unbound/unbound.conf.d/local.conf":
                 'server:\n  interface: 0.0.0.0\n  access-control: 0.0.0.0/0 allow\n  local-data: "www.example.org. A 192.0.2.80"\n'})])
def test_name_server(cabled, service, files):
    one = cabled(FIRST, service, files=files)
    eventually(one, f"dig +short +time=1 @{FIRST} www.example.org", "192.0.2.80")


# Networks

DHCPD = f"subnet {NETWORK}.0 netmask 255.255.255.0 {{ range {NETWORK}.100 {NETWORK}.120; option routers {HOST}; }}\n"


@pytest.mark.parametrize("client", ["dhclient -v eth0", "dhcpcd --waitip eth0"])
def test_dhcp(cabled, client):
    """The server is in another subhost."""
    cabled(FIRST, "isc-dhcp-server", files={"etc/dhcp/dhcpd.conf": DHCPD, "etc/default/isc-dhcp-server": "INTERFACESv4=eth0\n"})
    one = cabled(None)
    one.inside(*client.split())
    assert re.search(rf"inet {NETWORK}\.1[012]\d/24", one.sh("ip address show dev eth0"))
    assert f"default via {HOST}" in one.sh("ip route")
    pings(one, HOST)


def test_dhcp_by_ifupdown(cabled, server, bridge):
    cabled(FIRST, "isc-dhcp-server", files={"etc/dhcp/dhcpd.conf": DHCPD, "etc/default/isc-dhcp-server": "INTERFACESv4=eth0\n"})
    one = server("networking", files={"etc/network/interfaces": "auto eth0\niface eth0 inet dhcp\n"}, CABLES=f"{bridge}=")
    assert re.search(rf"inet {NETWORK}\.1[012]\d/24", one.sh("ip address show dev eth0"))


def test_openvpn(cabled, directory):
    """Between two subhosts, each with the device of the host's."""
    common = "dev tun\nproto udp\nsecret /etc/openvpn/key\ncipher AES-256-CBC\nproviders legacy default\n"
    key, tunnel = f"{directory}/key", "10.8.0"
    ends = []
    for address, other, own, far in ((FIRST, SECOND, 1, 2), (SECOND, FIRST, 2, 1)):
        conf = f"{common}remote {other}\nifconfig {tunnel}.{own} {tunnel}.{far}\n"
        one = cabled(address, files={"etc/openvpn/link.conf": conf}, DEVICES="/dev/net/tun")
        if not ends:
            one.inside("openvpn", "--genkey", "secret", "/etc/openvpn/key")
            write(key, read(f"{one.upper}/etc/openvpn/key"))
        one.sh("umask 77; cat >/etc/openvpn/key", input=read(key))
        one.inside("service", "openvpn", "start")
        ends.append(one)
    pings(ends[0], f"{tunnel}.2")
    pings(ends[1], f"{tunnel}.1")
    assert "tun0" in links(ends[0].name)


FAIL2BAN = """\
[DEFAULT]
banaction = nftables
[sshd]
enabled = true
backend = polling
logpath = /var/log/auth.log
maxretry = 3
"""


def test_fail2ban_with_nftables(cabled):
    """The host is banned, which has tried to log in as users who are not there."""
    one = cabled(FIRST, "rsyslog", "ssh", "fail2ban", files={"etc/fail2ban/jail.d/test.conf": FAIL2BAN, "var/log/auth.log": ""})
    eventually(one, "fail2ban-client status sshd", "Currently banned:\t0")
    for number in range(3):
        with contextlib.suppress(subprocess.TimeoutExpired):        # the ban may come before the answer
            ssh("-oBatchMode=yes", f"nobody-{number}@{FIRST}", "id", seconds=PATIENCE)
    eventually(one, "fail2ban-client status sshd", HOST, SLOW)
    eventually(one, "nft list ruleset", HOST)
    assert "Connection refused" in ssh("-oBatchMode=yes", f"postie@{FIRST}", "id").stderr


def test_ping_and_traceroute(cabled):
    one = cabled(FIRST)
    done("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")      # the host answers each probe
    for user in ("root", "nobody"):
        pings(one, HOST)
        assert "1 received" in one.inside("ping", "-c", "1", "-W", str(PATIENCE), HOST, user=user)
        assert re.search(rf"^ 1  {HOST} ", one.inside("traceroute", "-nq", "1", HOST, user=user), re.MULTILINE)
    assert re.search(rf"^ 1  {HOST} ", one.inside("traceroute", "-nIq", "1", HOST), re.MULTILINE)


# Administration

SOURCE = "deb [trusted=yes] file:/srv/packages ./\n"
PACKAGE = """
    mkdir -p /tmp/asked/DEBIAN /tmp/asked/usr/bin
    printf 'Package: asked\\nVersion: {version}\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' >/tmp/asked/DEBIAN/control
    printf '#!/bin/sh\\nset -e\\ngetent passwd asked >/dev/null || useradd -r asked\\nchown asked: /usr/bin/asked\\nchmod 4755 /usr/bin/asked\\n' \\
        >/tmp/asked/DEBIAN/postinst
    printf '#!/bin/sh\\necho {version}\\n' >/tmp/asked/usr/bin/asked
    chmod 755 /tmp/asked/DEBIAN/postinst /tmp/asked/usr/bin/asked
    rm -f /srv/packages/asked_*
    dpkg-deb --build /tmp/asked /srv/packages >/dev/null
    cd /srv/packages
    for package in *.deb; do
        dpkg-deb -f $package
        printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' $package $(stat -c %s $package) $(sha256sum <$package | cut -d ' ' -f 1)
    done >Packages
    apt-get update"""


def test_apt(server):
    """Installs from a directory, upgrades, installs a service again, which goes on, and purges.

    Services are restarted where a policy-rc.d says so: there is no init system that invoke-rc.d(8) knows.
    """
    one = server("cron", "ssh", files={"etc/apt/sources.list": SOURCE})
    one.sh("printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
    apt = "export DEBIAN_FRONTEND=noninteractive; apt-get -y"
    one.sh(PACKAGE.format(version=1))
    one.sh(f"{apt} install asked hello")
    assert one.sh("asked; hello; stat -c '%a %U' /usr/bin/asked") == "1\nHello, world!\n4755 asked"
    one.sh(PACKAGE.format(version=2))
    assert "asked (2)" in one.sh(f"{apt} upgrade")
    assert one.sh("asked; stat -c '%a %U' /usr/bin/asked") == "2\n4755 asked"
    before = one.sh("cat /run/sshd.pid")
    one.sh(f"{apt} install --reinstall openssh-server", seconds=SLOW)
    assert one.sh("cat /run/sshd.pid") != before and "is running" in one.sh("service ssh status")
    one.sh(f"{apt} purge asked hello")
    assert one.sh("dpkg --verify asked 2>&1; dpkg --audit; command -v asked hello || echo gone").endswith("gone")


def test_tmux(server, terminal):
    one = server()
    one.sh("tmux new-session -d -s asked sh; tmux send-keys -t asked 'echo $((6 * 7))' Enter")
    eventually(one, "tmux capture-pane -p -t asked", "42")
    shown = terminal("overlay-go", one.name, "tmux", "attach", "-t", "asked", env={"TERM": "xterm"})
    shown.expect("42")
    shown.type("exit\n")
    shown.expect("[exited]")
    assert shown.ended() == 0


CONTAINERS = "[containers]\nkeyring = false\n"


@pytest.mark.parametrize("users", ["auto"], indirect=True)
def test_podman(server):
    """A container of an image, and of it another one, behind a bridge: in a subhost that has a user namespace."""
    one = server(files={"etc/containers/containers.conf": CONTAINERS})
    one.sh("mkdir -p /var/lib/containers; mount -t tmpfs tmpfs /var/lib/containers; mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    one.sh("""mkdir /tmp/image; cd /tmp/image; mkdir -p dev etc proc sys
        for file in /bin/sh /usr/bin/id /usr/bin/touch $(ldd /bin/sh /usr/bin/id /usr/bin/touch | grep -o '/lib[^ ]*' | sort -u); do
            mkdir -p .${file%/*}; cp -L $file .$file; done
        tar -c . | podman import - image""", seconds=SLOW)
    assert one.sh("podman run --rm --network none image /bin/sh -c '/usr/bin/id -u; /usr/bin/touch /new; echo $$'", seconds=SLOW) == "0\n1"
    assert one.sh("podman run --rm image /bin/sh -c 'echo /sys/class/net/*'", seconds=SLOW) == "/sys/class/net/eth0 /sys/class/net/lo"
    assert one.sh("ls /sys/class/net").split() == ["cni-podman0", "lo"]


def test_strace_by_an_ordinary_user(server):
    """Of a process that he starts, with its children."""
    one = server()
    add_user(one)
    traced = one.go("strace", "-fe", "trace=execve", "sh", "-c", "/bin/true; /bin/true", user="postie")
    assert traced.returncode == 0 and 'execve("/bin/true"' in traced.stderr


def test_the_time_is_the_hosts(server):
    """There is nothing to run for it."""
    one = server()
    assert abs(int(one.sh("date +%s")) - time.time()) < NOW
    assert one.sh("TZ=UTC0 date -d @0 +%F; TZ=Europe/Berlin date -d @0 +%H:%M") == "1970-01-01\n01:00"
