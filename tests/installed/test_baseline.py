"""A baseline of a Debian system that administrators have had in their hands, and subhosts over it.

The system is a root file system of its own, as the machine's package sources have it.
"""
import glob
import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import cannot_run
from machine import BASELINE, TREE, one_line, read, run, start, wait_for, write

INCLUDED = "apt,apt-utils,ca-certificates,cron,dbus,openssh-server,rsyslog,sudo,ifupdown"
SECRET = "the-secret-of-the-host"

# What administrators and the machine put where, and nobody in a subhost may read.
SECRETS = [
    "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/sshd_config.d/local.conf",
    "etc/ssl/private/www.key", "etc/ssl/certs/intern.pem", "etc/letsencrypt/live/www/privkey.pem",
    "etc/sudoers.d/admins", "etc/wireguard/wg0.conf", "etc/NetworkManager/system-connections/wifi",
    "etc/wpa_supplicant/wpa_supplicant.conf", "etc/ppp/chap-secrets", "etc/ipsec.secrets", "etc/krb5.keytab",
    "etc/apt/auth.conf", "etc/apt/auth.conf.d/mirror.conf", "etc/apt/apt.conf.d/99proxy", "etc/msmtprc",
    "etc/network/interfaces.d/local", "etc/cron.d/backup", "etc/cron.daily/backup", "etc/backup/passphrase",
    "etc/systemd/system/local.service", "etc/init.d/local", "etc/samba/private", "etc/exports", "etc/crypttab",
    "etc/machine-info", "etc/hosts.equiv", "etc/default/local", "etc/pam.d/local", "etc/netrc",
    "etc/ca-certificates/local.crt", "etc/rsyslog.d/remote.conf", "etc/logrotate.d/local",
    "root/.ssh/id_ed25519", "root/.ssh/authorized_keys", "root/.bash_history", "root/.netrc", "root/.my.cnf",
    "home/alice/.ssh/id_rsa", "home/alice/notes", "srv/www/config.php", "opt/shop/database.ini", "tmp/dump.sql",
    "mnt/disk/file", "media/stick/file", "boot/grub/grub.cfg", "data/file", "secret", "backup/etc.tar",
    "usr/local/bin/deploy", "usr/local/etc/deploy.conf", "run/agent.token", "dev/shm.dump",
    "var/spool/cron/crontabs/root", "var/spool/cron/crontabs/alice", "var/mail/root", "var/spool/mqueue/letter",
    "var/log/auth.log", "var/log/journal/x/system.journal", "var/lib/systemd/random-seed", "var/backups/shadow.bak",
    "var/lib/dhcp/dhclient.leases", "var/lib/mysql/users.frm", "var/lib/private/token", "var/cache/app/session",
    "var/cache/debconf/passwords.dat", "var/tmp/copy", "var/www/html/config.php", "var/lib/apt/lists/auth",
    "var/lib/ucf/cache/:etc:app.conf", "var/lib/sudo/lectured/alice", "var/lib/dpkg/status-old",
]
EDITED = ["etc/ssh/sshd_config", "etc/crontab", "etc/sudoers", "etc/rsyslog.conf", "etc/nsswitch.conf", "etc/profile",
          "etc/pam.d/common-auth", "etc/login.defs", "etc/hosts", "etc/fstab", "etc/hostname", "etc/environment",
          "etc/init.d/cron", "etc/ca-certificates.conf", "etc/resolv.conf", "etc/default/locale", "etc/shells"]


@pytest.fixture(scope="session")
def debian(debian_root):
    """A fresh system of some packages."""
    return debian_root("baseline", INCLUDED)


@pytest.fixture(scope="session")
def fresh(debian):
    """What is told of the system before anybody has touched it: {path: (kind, mode, owner, group)} of /etc, its verification."""
    return {"etc": inventory(f"{debian}/etc"), "verify": run("chroot", debian, "dpkg", "--verify").stdout,
            "passwd": read(f"{debian}/etc/passwd")}


@pytest.fixture(scope="session")
def host(debian, fresh):
    """The same system after years."""
    for path in SECRETS:
        write(f"{debian}/{path}", f"# {SECRET}\n")
    for path in EDITED:
        with open(f"{debian}/{path}", "a") as file:
            file.write(f"# {SECRET}\n")
    os.unlink(f"{debian}/etc/cron.daily/dpkg")
    for words in (["useradd", "-m", "-p", f"$6${SECRET}", "-G", "sudo", "bob"], ["groupadd", "-g", "2000", "admins"],
                  ["usermod", "-p", f"$6${SECRET}", "root"], ["useradd", "-o", "-u", "0", "-p", f"$6${SECRET}", "toor"],
                  ["update-rc.d", "cron", "remove"], ["update-alternatives", "--install", "/usr/bin/pager", "pager", "/usr/local/bin/deploy", "99"],
                  ["ln", "-sfn", "/data/rules", "/etc/sudoers.link"], ["chown", "bob", "/etc/crontab"]):
        done = run("chroot", debian, *words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    write(f"{debian}/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    return debian


@pytest.fixture(scope="session")
def baseline(host, run_directory):
    """The baseline of that; its path is given as a relative one."""
    made = f"{run_directory}/baseline"
    done = run(BASELINE, "--root", os.path.basename(host), made, cwd=os.path.dirname(host), seconds=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert not glob.glob(f"{run_directory}/.baseline.*")
    return made


@pytest.fixture
def over(subhost, host, baseline):
    """A subhost over the baseline."""
    def make(**settings):
        return subhost(LOWER=f"{baseline}:{host}", **settings)
    return make


def inventory(directory):
    found = {}
    for here, directories, files in os.walk(directory):
        for name in (*directories, *files):
            info = os.lstat(f"{here}/{name}")
            found[f"{here}/{name}".removeprefix(directory)] = (info.st_mode, info.st_uid, info.st_gid)
    return found


def lines_of(text):
    return [line for line in text.splitlines() if line]


# What is hidden

def test_the_secrets_can_be_read_without_a_baseline(subhost, host):
    """Else the test after this one proves nothing."""
    one = subhost(LOWER=host, RAM_SIZE="none").booted()
    for path in SECRETS:
        if not path.startswith("dev/"):
            assert SECRET in one.inside("cat", f"/{path}"), path


def test_no_secret_can_be_read(over):
    one = over(RAM_SIZE="none").booted()
    for path in SECRETS:
        assert SECRET not in one.go("cat", f"/{path}").stdout, path
    found = one.go("grep", "-rlsI", "--devices=skip", SECRET, "/", "--exclude-dir=proc", "--exclude-dir=sys", "--exclude-dir=dev")
    assert found.stdout == "" and found.returncode == 1


def test_no_private_key_or_mail_name_that_a_maintainer_script_makes(host, directory):
    """Else all subhosts had the same one."""
    package = f"{directory}/keys"
    write(f"{package}/DEBIAN/control", "Package: overlay-boot-keys\nVersion: 1\nArchitecture: all\nPriority: important\n"
                                       "Maintainer: nobody <nobody@example.org>\nDescription: makes keys\n")
    write(f"{package}/DEBIAN/postinst", "#!/bin/sh\nset -e\ncd /etc\necho made >keys.made\necho host.example >mailname\n"
                                        "for key in keys1 keys2 keys3 keys4 keys5 keys6; do\necho ssh-ed25519 AAAA >$key.pub\n"
                                        "echo '-----BEGIN OPENSSH PRIVATE KEY-----' >$key\ndone\n", 0o755)
    assert run("dpkg-deb", "--build", package, f"{host}/keys.deb").returncode == 0
    try:
        done = run("chroot", host, "dpkg", "--install", "/keys.deb")
        assert done.returncode == 0, done.stderr
        run(BASELINE, "--offline", "--root", host, f"{directory}/layer", seconds=200)
    finally:
        run("chroot", host, "dpkg", "--purge", "overlay-boot-keys")
        for path in (*glob.glob(f"{host}/etc/keys*"), f"{host}/etc/mailname", f"{host}/keys.deb"):
            os.unlink(path)
    assert glob.glob(f"{directory}/layer/etc/keys*") == [f"{directory}/layer/etc/keys.made"]
    assert not os.path.exists(f"{directory}/layer/etc/mailname")


def test_nothing_of_administrators_is_there_at_all(over):
    one = over().booted()
    there = one.sh("cd / && for path in " + " ".join(SECRETS) + "; do [ -e $path ] && echo $path; done; true").split()
    # What every system has of its own.
    assert set(there) <= {"etc/ssl/certs", "var/cache/debconf/passwords.dat"}
    assert one.sh("ls -A /home /srv /opt /mnt /media /boot /usr/local/bin").split() == [
        "/boot:", "/home:", "/media:", "/mnt:", "/opt:", "/srv:", "/usr/local/bin:"]
    assert one.inside("cat", "/etc/machine-id") == ""


def test_accounts_are_those_of_packages(over, fresh):
    one = over().booted()
    assert sorted(lines_of(one.inside("cat", "/etc/passwd"))) == sorted(lines_of(fresh["passwd"]))
    for line in lines_of(one.inside("cat", "/etc/shadow")) + lines_of(one.inside("cat", "/etc/gshadow")):
        assert line.split(":")[1] == "*", line
    groups = one.inside("cat", "/etc/group")
    assert "bob" not in groups and "admins" not in groups
    assert one.inside("stat", "-c", "%a %U:%G", "/etc/shadow") == "640 root:shadow"


def test_a_directory_of_a_subhost_in_usr_is_hidden(subhost, host, directory):
    base = f"{host}/usr/share/subhosts"
    os.makedirs(base)
    running = subhost(place=base).booted()
    done = run(BASELINE, "--offline", "--root", host, f"{directory}/layer", seconds=200)
    assert running.is_running() and done.returncode in (0, 3)
    one = subhost(LOWER=f"{directory}/layer:{host}").booted()
    assert one.go("ls", f"/usr/share/subhosts/{running.name}").returncode
    assert one.inside("ls", "/usr/share/subhosts") == ""


def test_a_baseline_that_stands_in_what_it_hides(subhost, host, baseline):
    """On the file system of LOWER, as every administrator will have it."""
    shutil.rmtree(f"{host}/opt/baseline", ignore_errors=True)
    assert run("cp", "-a", baseline, f"{host}/opt/baseline").returncode == 0
    one = subhost(LOWER=f"{host}/opt/baseline:{host}").booted()
    assert one.inside("ls", "-A", "/opt", "/home") == "/home:\n\n/opt:"
    assert one.sh("test ! -e /root/.ssh/id_ed25519 && test ! -e /data && cat /etc/machine-id") == ""
    assert one.inside("dpkg", "--verify") == ""
    one.stopped()
    shutil.rmtree(f"{host}/opt/baseline")


# What is restored

def test_etc_is_as_on_a_fresh_system(over, fresh, baseline):
    now = inventory(f"{baseline}/etc")
    gone = {path for path in fresh["etc"] if path not in now}
    # The last are libwrap0's, whose priority is optional, and which makes them in its own way; and mmdebstrap's.
    known = r"/(hostname|.*-|ssh/ssh_host_\w+(\.pub)?|apt/sources.list.d/.*|hosts\.(allow|deny)|apt/apt.conf.d/99mmdebstrap)"
    assert not [path for path in gone if not re.fullmatch(known, path)]
    # The last is what a maintainer script of Debian 13's ssh makes when it is run a second time.
    assert {path for path in now if path not in fresh["etc"]} <= {
        "/apt/sources.list", "/hosts", "/machine-id", "/mtab", "/runit/runsvdir/default/ssh"}
    differing = {path for path in now if path in fresh["etc"] and now[path] != fresh["etc"][path]}
    assert differing <= {"/machine-id", "/resolv.conf", "/hosts", "/mtab"}


def test_packages_verify_as_on_a_fresh_system(over, fresh):
    one = over().booted()
    assert one.inside("dpkg", "--verify").split("\n") == fresh["verify"].strip("\n").split("\n")
    assert one.inside("dpkg", "--audit") == ""


def test_edited_files_are_as_shipped(over, host):
    one = over().booted()
    assert one.inside("cat", "/etc/ssh/sshd_config") == read(f"{host}/usr/share/openssh/sshd_config").strip("\n")
    assert one.inside("stat", "-c", "%U", "/etc/crontab") == "root"
    assert one.inside("readlink", "/etc/alternatives/pager") == "/bin/more"
    assert "cron" in one.inside("ls", "/etc/rc2.d")
    assert one.inside("sh", "-c", "ls /etc/cron.daily/dpkg /etc/ssl/certs/ca-certificates.crt")


def test_sources_are_the_distributions(over):
    text = over().booted().inside("cat", "/etc/apt/sources.list")
    assert text and all(line.startswith("deb ") and "debian" in line for line in text.splitlines())


# What works

def test_services_run(over):
    one = over(START="cron ssh", PREMOUNT="./premount")
    shutil.copy(f"{TREE}/conf-examples/premount", one.base)
    one.booted()
    wait_for(lambda: "SSH-" in one.go("bash", "-c", "head -c 4 </dev/tcp/127.0.0.1/22").stdout, what="ssh answers")
    said = one.inside("ssh-keyscan", "-t", "ed25519", "127.0.0.1").splitlines()
    key = next(line.split() for line in said if line[0] != "#")      # with which newer ones tell what they do
    assert key[1:] == read(f"{one.upper}/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    one.inside("rsyslogd")                      # Debian 12 has no script of it in /etc/init.d
    one.inside("logger", "a word from inside")
    wait_for(lambda: "a word from inside" in one.go("cat", "/var/log/syslog").stdout, what="rsyslog writes it")
    one.sh("echo '* * * * * root true' >/etc/cron.d/ours")
    wait_for(lambda: "CRON" in one.go("cat", "/var/log/syslog").stdout, 90, "cron runs what is due")


def test_packages_can_be_installed(over):
    one = over().booted()
    one.sh("""
        mkdir -p /srv/repository/new/DEBIAN && cd /srv/repository
        printf '%s\\n' 'Package: new' 'Version: 1' 'Architecture: all' 'Maintainer: nobody' 'Description: new' >new/DEBIAN/control
        mkdir new/etc && echo new >new/etc/new && dpkg-deb -b new . && apt-ftparchive packages . >Packages
        echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list
        apt-get update && apt-get install -y new && apt-get check""")
    assert one.inside("cat", "/etc/new") == "new"
    assert one.sh("dpkg-query -Wf '${Status}' new") == "install ok installed"


def test_an_upgraded_program_is_seen(over, host):
    one = over()
    write(f"{host}/usr/bin/upgraded", "#!/bin/sh\necho 1\n", 0o755)
    assert one.booted().inside("upgraded") == "1"
    one.stopped()
    write(f"{host}/usr/bin/upgraded", "#!/bin/sh\necho 2\n", 0o755)
    assert one.booted().inside("upgraded") == "2"


# Making it

@pytest.mark.parametrize("variable", ["LOWER", "LAYER"])
def test_a_running_subhost_keeps_the_one_that_it_has(subhost, host, baseline, run_directory, variable):
    layers = {"LOWER": f"{baseline}:{host}"} if variable == "LOWER" else {"LAYER": baseline, "LOWER": host}
    one = subhost(**layers).booted()
    one.configure(LOWER=host)           # edited since: what counts is what it was booted with
    before = os.stat(baseline).st_ino
    assert run(BASELINE, "--root", host, baseline, seconds=200).returncode == 0
    assert os.stat(baseline).st_ino != before
    assert one.inside("cat", "/etc/crontab") and one.inside("ls", "/var/lib/dpkg/info")
    kept = f"{run_directory}/.baseline.overlay-baseline/{before}"
    assert os.listdir(f"{run_directory}/.baseline.overlay-baseline") == [str(before)] and os.path.exists(f"{kept}/etc")
    one.stopped()
    assert run(BASELINE, "--root", host, baseline, seconds=200).returncode == 0
    assert not os.path.exists(os.path.dirname(kept))


BY_SCRIPTS = {"/etc/.pwd.lock", "/etc/ld.so.cache", "/etc/ssl/certs/ca-certificates.crt"}


def test_file_systems_of_its_own(host, subhost, directory):
    """In a system with /usr, /var and /home apart, as Debian's installer offers it, maintainer scripts have all of it."""
    parted = f"{directory}/parted"
    os.mkdir(parted)
    mounted = []
    try:
        for name in ("usr", "var", "home"):
            os.mkdir(f"{parted}/{name}")
            with open(f"{directory}/{name}.ext4", "wb") as file:
                file.truncate(1 << 30)
            assert run("mkfs.ext4", "-q", file.name).returncode == 0
            done = run("mount", "-o", "loop", file.name, f"{parted}/{name}")
            if done.returncode:
                cannot_run(f"no loop devices here: {done.stderr}")
            mounted.append(f"{parted}/{name}")
        assert run("cp", "-a", f"{host}/.", parted).returncode == 0
        done = run(BASELINE, "--offline", "--root", parted, f"{directory}/parts", seconds=250)
        made = {*inventory(f"{directory}/parts")}
        assert made >= BY_SCRIPTS, f"{BY_SCRIPTS - made}: {done.stderr}"
        one = subhost(LOWER=parted, LAYER=f"{directory}/parts").booted()
        assert one.sh("dpkg-query -Wf '${Status}' cron; ls -A /home; test -x /usr/sbin/cron") == "install ok installed"
        one.stopped()
    finally:
        for place in mounted:
            assert run("umount", place).returncode == 0


@pytest.mark.parametrize("place", ["layer/etc", "layer/var/lib/dpkg/status", "work/work", "layer/etc/ld.so.cache"])
def test_killed_in_the_middle(host, directory, place, machine):
    """At several points; what stands there is what was there, and the next run clears."""
    made = f"{directory}/layer"
    os.mkdir(made)
    workshop = f"{directory}/.layer.overlay-baseline"
    process = start(BASELINE, "--offline", "--root", host, made)
    wait_for(lambda: os.path.lexists(f"{workshop}/{place}"), 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(made) == [] and os.path.exists(workshop)
    wait_for(lambda: run(BASELINE, "--root", "/nowhere", made).stderr.find("another") < 0)
    assert os.listdir(made) == [] and not os.path.exists(workshop)


def test_two_at_once(host, directory):
    made = f"{directory}/layer"
    process = start(BASELINE, "--offline", "--root", host, made)
    wait_for(lambda: os.path.exists(f"{directory}/.layer.overlay-baseline/layer"))
    assert "another overlay-baseline" in one_line(run(BASELINE, "--root", host, made))
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert os.listdir(directory) == []


def test_a_package_that_cannot_be_had_is_named(host, directory):
    status = f"{host}/var/lib/dpkg/status"
    text = read(status)
    try:
        write(status, re.sub(r"(Package: cron\n(?:.+\n)*?Version: ).*", r"\g<1>0~gone", text))
        done = run(BASELINE, "--root", host, f"{directory}/layer", seconds=250)
    finally:
        write(status, text)
    assert done.returncode == 3
    assert re.search(r"^overlay-baseline: cannot get cron 0~gone: the baseline lacks .*/etc/init.d/cron", done.stderr), done.stderr
    assert os.path.exists(f"{directory}/layer/etc/sudoers") and not os.path.exists(f"{directory}/layer/etc/init.d/cron")


def test_what_it_does_is_shown_on_a_terminal(host, directory, terminal):
    """In one line, which makes way for what goes wrong, and is gone at the end."""
    shown = terminal(BASELINE, "--offline", "--root", host, f"{directory}/layer", size=(24, 60), env={"TERM": "xterm"})
    assert shown.ended(250) == 3
    *told, last = os.fsdecode(shown.said).split("\r\x1b[K")
    assert last == "" and told[0] == "" and all(len(line) < 60 for line in told if "\n" not in line)
    wrong = [line for line in told if "\n" in line]
    assert wrong and all(re.fullmatch("overlay-baseline: cannot get [^\n]*\r\n", line) for line in wrong)
    steps = [re.fullmatch(r"running maintainer scripts \((\d+) of (\d+)\): (\S+)", line) for line in told if "scripts" in line]
    numbers = [int(step[1]) for step in steps]
    assert numbers == sorted(numbers) and 0 < numbers[0] <= numbers[-1] <= int(steps[0][2])
    assert "writing the layer to the disk" in told


def test_what_is_no_baseline_is_not_replaced(host, directory):
    write(f"{directory}/mine/file", "mine")
    assert "neither empty nor a baseline" in one_line(run(BASELINE, "--root", host, f"{directory}/mine"))
    assert read(f"{directory}/mine/file") == "mine"
    assert "not a directory" in one_line(run(BASELINE, "--root", host, f"{directory}/mine/file"))
    os.symlink("mine", f"{directory}/link")
    assert "not a directory" in one_line(run(BASELINE, "--root", host, f"{directory}/link"))
    assert os.listdir(directory) and not glob.glob(f"{directory}/.*")


def test_what_is_no_debian_system(directory):
    os.mkdir(f"{directory}/root")
    line = one_line(run(BASELINE, "--root", f"{directory}/root", f"{directory}/layer"))
    assert "cannot read" in line and "/var/lib/dpkg/status" in line
    assert os.listdir(directory) == ["root"]


def test_called_wrongly(machine):
    assert run(BASELINE).returncode == 2
    assert subprocess.run([BASELINE, "--help"], stdout=subprocess.DEVNULL, check=False).returncode == 0
