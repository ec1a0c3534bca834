"""A subhost that has followed its host is as one that was made anew over it: with whole systems, and packages of Debian's own.

The host is a Debian 12 of its own, with overlay-boot and subhosts over /; it takes many minutes to make, so this is not for CI.
"""
import glob
import hashlib
import json
import os
import shutil

import pytest
from conftest import cannot_run
from machine import FOLLOW, TREE, run, wait_for, write
from roots import CACHE
from whole_host import SLOW, WholeHost, differences

NEW_SUITE = "trixie"
LEFT = 3
LONG = 3 * 3600     # seconds, for a test
SETTLED = 300       # seconds, for what the script of a service has left in the background: MariaDB looks at its tables
HOOK_SAYS = "overlay-follow --all --restart restarts the services"


@pytest.fixture(scope="session")
def archive():
    """The path of a tar archive of the host, which is made with the packages of overlay-boot for it."""
    made = run("sh", f"{TREE}/tests/shell/following", seconds=2 * 3600)
    if made.returncode:
        cannot_run(f"tests/shell/following failed: {made.stderr}")
    return f"{CACHE}/bookworm.following.tar"


@pytest.fixture
def host(archive, directory):
    """A host of the test's own, with overlay-boot."""
    root = f"{directory}/host"
    os.mkdir(root)
    unpacked = run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", root, seconds=SLOW)
    assert unpacked.returncode == 0, unpacked.stderr
    with WholeHost(root) as made:
        made.install(overlay_boot(made, "bookworm"))
        yield made


def overlay_boot(host, suite):
    """The package for that suite; its path on the host."""
    [package] = glob.glob(f"{TREE}/build/suites/{suite}/overlay-boot_*.deb")
    shutil.copy(package, f"{host.root}/srv/overlay-boot.{suite}.deb")
    return f"/srv/overlay-boot.{suite}.deb"


@pytest.fixture
def subhost(host):
    """Makes subhosts of it: subhost(VARIABLE=value, ...)."""
    made = []

    def make(**settings):
        made.append(host.subhost(**settings))
        return made[-1].booted(seconds=SLOW)

    yield make
    for one in made:
        one.remove()


def follow(one, *words, status=0, fails=()):
    """What is told, where no script of a service fails but these."""
    done = one.run(FOLLOW, "--json", *words, one.conf)
    said = "".join(f"overlay-follow: {one.name}: cannot {what}: service failed with exit status 1 (what it printed is in LOG={one.log_inside})\n"
                   for what in fails)
    assert (done.returncode, done.stderr) == (status, said), f"{done}\n{one.said()}"
    [row] = json.loads(done.stdout)
    return row


def nothing_to_follow(one):
    row = follow(one)
    assert (row["packages"], row["left"], row["restarted"], row["old"]) == ([], [], [], [])


def of_packages(row, change):
    return {each["package"] for each in row["packages"] if each["change"] == change}


def later(host, name, lines="", place="packages"):
    """A later version of a package of Debian's in /srv, of which postinst begins with these lines; its path on the host."""
    [path] = glob.glob(f"{host.root}/srv/{place}/{name}_*.deb")
    place = f"{host.root}/srv/{os.path.basename(path).removesuffix('.deb')}"
    assert run("dpkg-deb", "-R", path, place, seconds=SLOW).returncode == 0
    control = f"{place}/DEBIAN/control"
    with open(control) as file:
        text = file.read()
    [version] = [line.split()[1] for line in text.splitlines() if line.startswith("Version:")]
    write(control, text.replace(f"Version: {version}\n", f"Version: {version}+later\n"))
    if lines:
        script = f"{place}/DEBIAN/postinst"
        with open(script) as file:
            first, _, rest = file.read().partition("\n")
        write(script, f"{first}\n{lines}\n{rest}", 0o755)
    assert run("dpkg-deb", "-Znone", "-b", place, f"{place}.deb", seconds=SLOW).returncode == 0
    return f"{place.removeprefix(host.root)}.deb"


# What no two systems have in common, or what tells of the past.
PASSING = ("/srv", "/home", "/var/backups", "/var/cache", "/var/lib/mysql", "/var/lib/postgresql", "/var/spool", "/var/tmp")


def is_as_fresh(one, fresh):
    """A subhost has the records, files and services of one that has just been made."""
    records = [each.status() for each in (one, fresh)]
    assert records[0] == records[1]
    found = differences(one, fresh, PASSING)        # a conffile of one's own has that of the package beside it
    assert {path: what for path, what in found.items() if "/__pycache__/" not in path and not path.endswith(".dpkg-dist")} == {}
    wait_for(lambda: one.services() == fresh.services(), SETTLED)


# What a service is asked.

SMTPD = 'listen on lo\naction "local" maildir\nmatch from any for domain "example.org" action "local"\n'
SEND = """
import smtplib
with smtplib.SMTP("127.0.0.1", local_hostname="alice.example.net", timeout=60) as smtp:
    smtp.sendmail("alice@example.net", ["postie@example.org"], "Subject: asked\\r\\n\\r\\nHello.\\r\\n")
"""
GET = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1/asked.html', timeout=60).read().decode())"


def mail_is_accepted(one):
    one.inside("python3", "-c", SEND)


def page_is_served(one):
    assert one.inside("python3", "-c", GET).strip() == "answered"


def rows_are_in_mariadb(one):
    assert one.inside("mariadb", "-BNe", "select answer from x.asked") == "42"


def rows_are_in_postgresql(one):
    assert one.inside("psql", "-qAtc", "select answer from asked", user="postgres") == "42"


def rows_are_there(one):
    rows_are_in_mariadb(one)
    rows_are_in_postgresql(one)


def with_later_names(found):
    """Without what MariaDB is started by, which has another name since."""
    return {(user, program) for user, program in found if program not in ("mysqld_safe", "mariadbd-safe")}


def put_into_mariadb(one):
    one.sh("mariadb", input="create database x; use x; create table asked (answer int) engine=innodb; insert into asked values (42);")


def put_into_postgresql(one):
    one.inside("psql", "-qc", "create table asked as select 42 as answer", user="postgres")


@pytest.mark.deadline(LONG)
def test_from_debian_12_to_13(host, subhost):
    """Mail and databases are of packages of the host's, the web server of packages of the subhost's; none is installed again."""
    nginx = [path.removeprefix(host.root) for path in glob.glob(f"{host.root}/srv/packages/*nginx*.deb")]

    def mail():
        one = subhost()
        one.sh("useradd -m postie")
        one.sh("cat >/etc/smtpd.conf", input=SMTPD)
        return one.serves("opensmtpd")

    def web():
        one = subhost()
        one.install(*nginx)
        one.sh("echo answered >/var/www/html/asked.html")
        return one.serves("nginx")

    def database():
        return subhost(START="mariadb postgresql")

    three = {mail(): (mail_is_accepted, mail), web(): (page_is_served, web), database(): (rows_are_there, database)}
    put_into_mariadb([*three][-1])
    put_into_postgresql([*three][-1])
    for one, (answers, _) in three.items():
        answers(one)
        nothing_to_follow(one)
    services = {one: one.services() for one in three}

    said = host.sh(f"export APT_CONFIG=/srv/{NEW_SUITE}/apt.conf; apt-get -y --no-install-recommends --allow-downgrades "
                   f"-o Dpkg::Options::=--force-confold dist-upgrade {overlay_boot(host, NEW_SUITE)} 2>&1")
    print(said)
    assert f"VERSION_CODENAME={NEW_SUITE}" in host.sh("cat /etc/os-release")
    for one, (answers, _) in three.items():
        # The script of MariaDB 11.8 cannot ask 10.11 to end: its client wants TLS, which that has not got.
        fails = ["stop mariadb"] if answers is rows_are_there else []
        print(one.name, row := follow(one, "--restart", fails=fails))
        assert "libc6:amd64" in of_packages(row, "upgraded") and not of_packages(row, "unfinished")
        assert row["old"] == []
        answers(one)
        one.is_clean()
        nothing_to_follow(one)
        wait_for(lambda one=one: with_later_names(one.services()) == with_later_names(services[one]), SETTLED)
    for one, (answers, made_anew) in three.items():
        one.stopped()
        one.booted(seconds=SLOW)
        answers(one)
        is_as_fresh(one, made_anew())


MIGRATE_MARIADB = """
if [ "$1" = configure ] && [ -S /run/mysqld/mysqld.sock ]; then
    mariadb x -e "alter table asked add column was varchar(80) not null default '$2'"
fi
"""
MIGRATE_POSTGRESQL = """
if [ "$1" = configure ] && [ -S /run/postgresql/.s.PGSQL.5432 ]; then
    runuser -u postgres -- psql -qc "alter table asked add column was text not null default '$2'"
fi
"""


@pytest.mark.deadline(LONG)
def test_databases_that_postinst_migrates(host, subhost):
    """Only the subhost has the data, and its servers run meanwhile."""
    one = subhost(START="mariadb postgresql")
    put_into_mariadb(one)
    put_into_postgresql(one)
    nothing_to_follow(one)
    services, was = one.services(), {name: one.version(name) for name in ("mariadb-server", "postgresql-15")}
    host.sh(f"dpkg -i {later(host, 'mariadb-server', MIGRATE_MARIADB)} {later(host, 'postgresql-15', MIGRATE_POSTGRESQL)} 2>&1")
    row = follow(one, "--restart")
    assert of_packages(row, "upgraded") == {"mariadb-server", "postgresql-15"}
    assert (row["left"], row["old"], row["restarted"]) == ([], [], ["postgresql"])       # mariadbd is in another package
    rows_are_in_mariadb(one)
    rows_are_in_postgresql(one)
    assert one.inside("mariadb", "-BNe", "select was from x.asked") == was["mariadb-server"]
    assert one.inside("psql", "-qAtc", "select was from asked", user="postgres") == was["postgresql-15"]
    assert one.services() == services
    one.is_clean()
    nothing_to_follow(one)
    is_as_fresh(one, subhost(START="mariadb postgresql"))


RELEASE = """\
Origin: Debian
Label: Debian-Security
Suite: stable-security
Codename: bookworm-security
Date: Sat, 01 Jan 2022 00:00:00 UTC
SHA256:
 {sum} {size} Packages
"""


def repository(host, package):
    """The host's only source of packages is one of security updates, with one package."""
    place = f"{host.root}/srv/security"
    os.makedirs(place)
    os.rename(host.root + package, f"{place}/{os.path.basename(package)}")
    host.sh("""
        cd /srv/security
        for package in *.deb; do
            dpkg-deb -f $package
            printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' $package $(stat -c %s $package) $(sha256sum <$package | cut -d ' ' -f 1)
        done >Packages
        rm -f /etc/apt/sources.list.d/*
        echo 'deb [trusted=yes] file:/srv/security ./' >/etc/apt/sources.list""")
    with open(f"{place}/Packages", "rb") as file:
        data = file.read()
    write(f"{place}/Release", RELEASE.format(sum=hashlib.sha256(data).hexdigest(), size=len(data)))
    host.sh("apt-get update")


DAEMONS = "ps", "--ppid", "1", "-o", "pid=,comm="


@pytest.mark.deadline(LONG)
def test_unattended_upgrades(host, subhost):
    """A library that services map: who has services on old files is told, and nothing is started again."""
    idle, database, mail = subhost(), subhost(START="postgresql"), subhost(START="opensmtpd")
    for one in (idle, database, mail):
        nothing_to_follow(one)
    running = {one: one.inside(*DAEMONS) for one in (database, mail)}
    repository(host, later(host, "libssl3"))
    host.done("unattended-upgrade", "-v")
    with open(f"{host.root}/var/log/unattended-upgrades/unattended-upgrades-dpkg.log") as file:
        told = [line for line in file.read().splitlines() if line.startswith("upgraded: ")]
    assert len(told) == 1 and told[0].endswith(HOOK_SAYS), told
    for one, service in ((database, "postgresql"), (mail, "opensmtpd")):
        assert f"{one.name} ({service})" in told[0]
        assert one.row()["old"]
    assert idle.name not in told[0]
    for one, processes in running.items():
        assert one.inside(*DAEMONS) == processes
    for one, service in ((database, "postgresql"), (mail, "opensmtpd")):
        row = follow(one, "--restart")
        assert of_packages(row, "upgraded") == {"libssl3:amd64"} and row["restarted"] == [service] and row["old"] == []
        nothing_to_follow(one)
        is_as_fresh(one, subhost(START=service))


@pytest.mark.deadline(LONG)
def test_another_architecture_on_the_host_and_in_the_subhost(host, subhost):
    """The host's library is upgraded for both of its architectures; a program for the other one is the subhost's."""
    host.sh("dpkg --add-architecture i386; dpkg -i /srv/foreign/gcc-12* /srv/foreign/lib*")
    one = subhost()
    one.sh("dpkg -i /srv/foreign/hello_*", seconds=SLOW)
    nothing_to_follow(one)
    host.sh(f"dpkg -i {later(host, 'libnettle8')} {later(host, 'libnettle8', place='foreign')}")
    row = follow(one)
    assert of_packages(row, "upgraded") == {"libnettle8:amd64", "libnettle8:i386"} and row["left"] == []
    one.is_clean()
    nothing_to_follow(one)
    fresh = subhost()
    fresh.sh("dpkg -i /srv/foreign/hello_*", seconds=SLOW)
    is_as_fresh(one, fresh)


@pytest.mark.deadline(LONG)
def test_another_architecture_only_in_the_subhost(host, subhost):
    """dpkg has a library in the same version for all architectures, or does not configure it: that is told before."""
    one = subhost()
    one.sh("dpkg --add-architecture i386; dpkg -i /srv/foreign/*.deb", seconds=SLOW)
    nothing_to_follow(one)
    host.sh(f"dpkg -i {later(host, 'libnettle8')}")
    missing = {each["package"]: each["missing"] for each in follow(one, "--dry-run", status=LEFT)["packages"]}
    assert missing == {"libnettle8:amd64": [], "libnettle8:i386": [f"libnettle8:amd64 (= {one.version('libnettle8:i386')})"]}
    assert one.run(FOLLOW, one.conf).returncode == 1
    one.sh(f"dpkg -i {later(host, 'libnettle8', place='foreign')}", seconds=SLOW)
    nothing_to_follow(one)
    one.is_clean()
