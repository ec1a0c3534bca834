"""A mail server in a subhost, behind an address translation on the host: by hand, and by NAT and PUBLISH.

The host is one of the test's own (network.py), and so are its firewall rules; a third network namespace plays the
outside world, which knows nothing but the host's address.
"""
import contextlib
import os
import smtplib
import socket
import threading

import pytest
from conftest import cannot_run
from machine import PATIENCE, new_name, read, run, wait_for, write
from network import addresses, done, links, within

MAC = "06:20:03:4e:a6:f2"
HOST, SUBHOST = "192.168.0.1", "192.168.0.2"                    # MTANET=192.168.0
HOST_OUTSIDE, WORLD = "203.0.113.1", "203.0.113.9"
NEEDED = (*(f"/etc/init.d/{service}" for service in ("networking", "rsyslog", "ssh", "opensmtpd")), "/usr/sbin/nft", "/usr/bin/ssh")

INTERFACES = f"""\
auto lo eth0
iface lo inet loopback
iface eth0 inet static
    address {SUBHOST}/24
    gateway {HOST}
"""

# What the README does with iptables. What the mail server itself sends is not for itself.
FIREWALL = """\
table ip {name} {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname != "{name}0" tcp dport 25 dnat to {address}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname != "{name}0" ip saddr {address} masquerade
    }}
}}
"""

SMTPD = """\
listen on 0.0.0.0
action "local" maildir
match from any for domain "example.org" action "local"
"""

# No imklog: the kernel's messages are the host's business.
RSYSLOG = """\
module(load="imuxsock")
mail.*  /var/log/mail.log
"""

MESSAGE = "From: <alice@example.net>\r\nTo: <postie@example.org>\r\nSubject: {subject}\r\n\r\nHello.\r\n"


@pytest.fixture(autouse=True)
def services(host):
    missing = [path for path in NEEDED if not os.path.exists(path)]
    if missing:
        cannot_run(f"no {', '.join(missing)}")


@pytest.fixture
def world(machine):
    """The network namespace of the outside world, with a link to the host, which forwards."""
    name = new_name()
    done("ip", "netns", "add", name)
    done("ip", "link", "add", f"{name}up", "type", "veth", "peer", "name", "eth0", "netns", name)
    done("ip", "address", "add", f"{HOST_OUTSIDE}/24", "dev", f"{name}up")
    done("ip", "link", "set", f"{name}up", "up")
    done("ip", "-n", name, "address", "add", f"{WORLD}/24", "dev", "eth0")
    done("ip", "-n", name, "link", "set", "eth0", "up")
    machine.look()
    yield name
    done("ip", "link", "delete", f"{name}up")
    done("ip", "netns", "delete", name)


@pytest.fixture
def firewall():
    """Rules of the test's own, and forwarding, in the network namespace of the test's own host."""
    made = []

    def load(name):
        done("nft", "-f", "-", input=FIREWALL.format(name=name, address=SUBHOST))
        made.append(name)
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")

    yield load
    for name in made:
        done("nft", "delete", "table", "ip", name)


@pytest.fixture
def key(directory):
    """A key pair of the administrator's: the path of the private one."""
    done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/key")
    return f"{directory}/key"


@pytest.fixture(params=["no", "auto"])
def mta(subhost, host, request):
    """The subhost of the README, as far as it is set up before its first boot; without a user namespace, and in one."""
    one = subhost(BASE=None, CABLES=f"={MAC}", START="rsyslog networking ssh opensmtpd", USERNS=request.param)
    with open(host.interfaces, "w") as file:
        file.write(f"auto lo\niface lo inet loopback\n\nsource interfaces.d/{one.name}.conf\n")
    host.stanzas(f"{one.name}.conf", f"iface {one.name}0 inet static\n    address {HOST}/24\n")
    one.write("etc/hostname", "mta\n")
    one.write("etc/network/interfaces", INTERFACES)
    one.write("etc/smtpd.conf", SMTPD)
    one.write("etc/rsyslog.conf", RSYSLOG)
    one.write("etc/mailname", "mta.example.org\n")
    one.write("etc/resolv.conf", "nameserver 127.0.0.1\n")        # nobody there: who calls is not looked up for long
    os.mkdir(f"{one.upper}/etc/ssh")
    done("ssh-keygen", "-q", "-A", "-f", one.upper)     # not the host's
    return one


def test_the_mail_server_of_the_readme(mta, world, firewall, key):
    firewall(mta.name)
    mta.booted()
    plugged_in(mta)
    add_user(mta, "postie", key)

    deliver(world, "first")
    wait_for(lambda: "Subject: first" in mailbox(mta, "postie"))
    wait_for(lambda: "postie@example.org" in read(f"{mta.upper}/var/log/mail.log"))
    assert seen_outside(mta, world) == HOST_OUTSIDE
    assert ssh(mta, key, "postie", "id -un; hostname; cat Maildir/new/*").split()[:2] == ["postie", "mta"]

    mta.stopped()
    with pytest.raises(OSError), within(world):
        smtplib.SMTP(HOST_OUTSIDE, timeout=1)

    mta.booted()
    plugged_in(mta)
    assert "Subject: first" in mailbox(mta, "postie")
    deliver(world, "second")
    wait_for(lambda: "Subject: second" in mailbox(mta, "postie"))
    assert ssh(mta, key, "postie", "hostname") == "mta\n"
    mta.stopped()


@pytest.mark.parametrize("mta", ["no"], indirect=True)
def test_the_mail_server_without_a_stanza_and_a_firewall(mta, world, host, key):
    """ADDRESS, NAT and PUBLISH instead; ifupdown does nothing on either side, and the rest is the same."""
    host.stanzas(f"{mta.name}.conf", "")
    os.unlink(f"{mta.upper}/etc/network/interfaces")
    mta.configure(BASE=None, CABLES=f"={MAC}", START="rsyslog ssh opensmtpd", ADDRESS=f"{SUBHOST}/24@{HOST}", NAT="yes", PUBLISH="25")
    mta.booted()
    plugged_in(mta)
    add_user(mta, "postie", key)
    deliver(world, "first")
    wait_for(lambda: "Subject: first" in mailbox(mta, "postie"))
    assert seen_outside(mta, world) == HOST_OUTSIDE
    assert ssh(mta, key, "postie", "hostname") == "mta\n"
    mta.stopped()
    with pytest.raises(OSError), within(world):
        smtplib.SMTP(HOST_OUTSIDE, timeout=1)


def plugged_in(mta):
    """Both ends are configured, each by its own ifupdown; and overlay-ls tells."""
    assert addresses(links()[f"{mta.name}0"]) == [f"{HOST}/24"]
    wait_for(lambda: addresses(links(mta.name)["eth0"]) == [f"{SUBHOST}/24"])
    assert links(mta.name)["eth0"]["address"] == MAC
    assert mta.row()["cables"][0]["addresses"][0] == f"{SUBHOST}/24"


def add_user(mta, name, key):
    """One that only the subhost has, and that a key opens."""
    mta.inside("useradd", "--create-home", name)
    assert run("id", name).returncode != 0
    mta.sh(f"mkdir ~{name}/.ssh; cat >~{name}/.ssh/authorized_keys; chown -R {name}: ~{name}/.ssh", input=read(f"{key}.pub"))


def deliver(world, subject):
    """By SMTP, from the outside world, which knows the host's address."""
    def connected():
        with contextlib.suppress(OSError, smtplib.SMTPException), within(world):
            return smtplib.SMTP(HOST_OUTSIDE, local_hostname="alice.example.net", timeout=PATIENCE)

    with wait_for(connected) as server:
        server.sendmail("alice@example.net", ["postie@example.org"], MESSAGE.format(subject=subject))
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            server.sendmail("alice@example.net", ["bob@example.com"], MESSAGE.format(subject=subject))


def mailbox(mta, user):
    return mta.sh(f"cat ~{user}/Maildir/new/* 2>/dev/null || true")


def seen_outside(mta, world):
    """The address by which the outside world sees a connection from the subhost."""
    with within(world):
        server = socket.create_server((WORLD, 2525))
    with server:
        server.settimeout(PATIENCE)
        caller = threading.Thread(target=mta.go, args=("bash", "-c", f"exec 3<>/dev/tcp/{WORLD}/2525; read <&3"))
        caller.start()
        connection, (address, _) = server.accept()
        connection.close()
        caller.join()
    return address


def ssh(mta, key, user, command):
    """Run a command inside by ssh(1), from the host, which knows the subhost's key."""
    known = write(f"{key}.known", f"{SUBHOST} {read(f'{mta.upper}/etc/ssh/ssh_host_ed25519_key.pub')}", 0o600)
    options = ("BatchMode=yes", "IdentitiesOnly=yes", f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none",
               f"ConnectTimeout={PATIENCE}")
    return done("ssh", "-F", "none", "-i", key, *(f"-o{option}" for option in options), f"{user}@{SUBHOST}", command)
