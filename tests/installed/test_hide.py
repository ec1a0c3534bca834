"""HIDE: what of LOWER a subhost does not see."""
import ast
import os
import shutil
import stat
import struct
import tempfile

import pytest
from machine import BOOT, mounts, read, run, wait_for, write

SECRET = "the-secret-of-the-host"
LOCKED = "root:*:19000:0:99999:7:::\nalice:*:19000:0:99999:7::19500:\ndaemon:*:19000::::::\n"
ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 7, 0xFFFFFFFF, 2, 5, 4321, 4, 5, 0xFFFFFFFF, 0x10, 5, 0xFFFFFFFF, 0x20, 0, 0xFFFFFFFF)

# All that the word secrets stands for, but for passwords and BASE.
SECRETS = [
    "etc/shadow-", "etc/gshadow-", "etc/security/opasswd", "var/backups/shadow.bak", "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_new_key-cert.pub", "etc/ssl/private/www.key", "etc/letsencrypt/live/www/privkey.pem", "etc/wireguard/wg0.conf",
    "etc/ipsec.secrets", "etc/ipsec.d/private/key.pem", "etc/swanctl/private/key.pem", "etc/krb5.keytab", "etc/bind/rndc.key",
    "etc/dkimkeys/key", "etc/cryptsetup-keys.d/disk.key", "etc/credstore/password", "etc/credstore.encrypted/password",
    "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/tor/key", "var/lib/samba/private/secrets.tdb",
    "var/lib/sss/secrets/secrets.ldb", "etc/NetworkManager/system-connections/wifi", "var/lib/iwd/wifi.psk", "etc/ppp/chap-secrets",
    "etc/ppp/pap-secrets", "etc/apt/auth.conf", "etc/apt/auth.conf.d/mirror.conf", "etc/exim4/passwd.client", "etc/postfix/sasl_passwd",
    "etc/postfix/sasl_passwd.db", "etc/msmtprc", "etc/netrc", "etc/mysql/debian.cnf", "var/cache/debconf/passwords.dat",
    "var/cache/overlay-boot/layers/x/key", "home/alice/.ssh/id_ed25519", "home/alice/notes", "root/.ssh/id_rsa", "root/.bash_history",
    "var/mail/alice", "var/spool/cron/crontabs/alice", "var/spool/postfix/deferred/A/letter", "var/spool/mqueue/letter",
]


@pytest.fixture
def lower(own_root):
    """A root file system that somebody has used, with secrets in it."""
    for path in SECRETS:
        write(f"{own_root}/{path}", SECRET, 0o600)
    write(f"{own_root}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\ndaemon:x:1:1::/:\n")
    write(f"{own_root}/etc/group", "root:x:0:\nshadow:x:42:\n")
    write(f"{own_root}/etc/shadow", f"root:$y$j9T${SECRET}:19000:0:99999:7:::\nalice:!$y${SECRET}:19000:0:99999:7::19500:\ndaemon:!:19000::::::\n", 0o640)
    write(f"{own_root}/etc/gshadow", f"root:*::\nshadow:$6${SECRET}::\n", 0o640)
    for name in ("shadow", "gshadow"):
        os.chown(f"{own_root}/etc/{name}", 0, 42)
    os.chmod(f"{own_root}/root", 0o700)
    os.chown(f"{own_root}/var/spool/cron/crontabs", 0, 101)
    os.chmod(f"{own_root}/var/spool/cron/crontabs", 0o1730)
    os.symlink("../mail", f"{own_root}/var/spool/mail")
    write(f"{own_root}/etc/ssh/sshd_config", "Port 22\n")
    write(f"{own_root}/etc/wpa_supplicant/functions.sh", "no secret\n")
    return own_root


def seen(one, paths):
    """Those of the paths whose content can be read inside, by root."""
    return [path for path in paths if SECRET in one.go("cat", f"/{path}").stdout]


def attributes(path):
    found = os.lstat(path)
    return (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns,
            {name: os.getxattr(path, name) for name in os.listxattr(path)})


def has_user_attributes(directory):
    """Whether files have such on its file system: on a tmpfs since Linux 6.6."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        try:
            os.setxattr(file.name, "user.x", b"value")
        except OSError:
            return False
    return True


# secrets

def test_without_it_all_can_be_read(subhost, lower):
    """Else the tests after this one prove nothing."""
    one = subhost(LOWER=lower).booted()
    assert seen(one, [*SECRETS, "etc/shadow", "etc/gshadow"]) == [*SECRETS, "etc/shadow", "etc/gshadow"]


def test_secrets(subhost, lower):
    one = subhost(LOWER=lower, HIDE="secrets").booted()
    assert seen(one, [*SECRETS, "etc/shadow", "etc/gshadow"]) == []
    assert one.inside("cat", "/etc/shadow") + "\n" == LOCKED
    assert one.inside("cat", "/etc/gshadow") == "root:*::\nshadow:*::"
    assert one.inside("stat", "-c", "%a %u %g", "/etc/shadow", "/etc/gshadow") == "640 0 42\n640 0 42"
    assert one.inside("cat", "/etc/passwd") == read(f"{lower}/etc/passwd").strip()
    assert one.inside("cat", "/etc/ssh/sshd_config", "/etc/wpa_supplicant/functions.sh") == "Port 22\nno secret"
    assert one.inside("ls", "-A", "/home", "/root", "/var/mail", "/etc/ssl/private") == "/etc/ssl/private:\n\n/home:\n\n/root:\n\n/var/mail:"


def test_programs_find_the_directories_of_their_spools(subhost, lower):
    one = subhost(LOWER=lower, HIDE="secrets").booted()
    assert one.inside("stat", "-c", "%n %a %u:%g", "/var/spool/cron/crontabs", "/root") == "/var/spool/cron/crontabs 1730 0:101\n/root 700 0:0"
    assert one.inside("ls", "/var/spool", "/var/spool/postfix", "/var/spool/postfix/deferred", "/var/spool/mqueue") == (
        "/var/spool:\ncron\nmail\nmqueue\npostfix\n\n/var/spool/mqueue:\n\n/var/spool/postfix:\ndeferred\n\n/var/spool/postfix/deferred:")
    assert one.inside("readlink", "/var/spool/mail") == "../mail"


def test_hashes_in_passwd(subhost, lower):
    write(f"{lower}/etc/passwd", f"root:$6${SECRET}:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/:\nbob::1001:1001::/:\n+::::::\n\nodd\n")
    one = subhost(LOWER=lower, HIDE="secrets").booted()
    assert one.inside("cat", "/etc/passwd") == "root:*:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/:\nbob:*:1001:1001::/:\n+:*:::::\n\nodd"


def test_secrets_of_the_host(subhost, directory, small_root):
    """Its own root is LOWER; of each subhost that runs, BASE is hidden, and nothing above it."""
    other = subhost(LOWER=small_root).booted()
    other.sh(f"echo {SECRET} >/secret")
    write(f"{directory}/beside/file", "beside")
    one = subhost(HIDE="secrets").booted()
    assert all(line.split(":")[1] == "*" for line in one.inside("cat", "/etc/shadow").splitlines())
    for base in (one.base, other.base):
        assert one.inside("ls", "-A", base) == ""
    assert one.inside("cat", f"{directory}/beside/file") == "beside"
    assert one.sh("ls /etc/ssh/ssh_host_* || true") == one.inside("ls", "-A", "/root") == one.inside("ls", "-A", "/home") == ""
    assert other.inside("cat", "/secret") == SECRET


def test_a_base_that_holds_the_system_is_not_hidden(subhost, lower):
    """A configuration file may be in /etc, and say nothing of BASE."""
    one = subhost(LOWER=lower)
    write(f"{lower}/etc/one.conf", f"NAME={one.name}\nSTART=none\nLOWER={lower}\nHIDE=secrets\nUPPER={one.upper}\nWORK={one.work}\nLIVE={one.live}\n")
    one.conf = f"{lower}/etc/one.conf"
    one.booted()
    assert one.inside("cat", "/etc/ssh/sshd_config") == "Port 22"


# What is the subhost's own

def test_upper_and_layers_are_seen(subhost, lower, directory):
    one = subhost(LOWER=lower, LAYER="layer", HIDE="secrets /etc/motd")
    one.write("etc/shadow", "root:x:::::::\n", 0o640)
    one.write("etc/ssh/ssh_host_rsa_key", "own", 0o600)
    one.write("home/bob/notes", "own")
    write(f"{one.base}/layer/etc/krb5.keytab", "layer")
    write(f"{one.base}/layer/etc/ssl/private/www.key", "layer")
    write(f"{one.base}/layer/etc/motd", "layer")
    write(f"{lower}/etc/motd", SECRET)
    one.booted()
    assert one.inside("cat", "/etc/shadow", "/etc/ssh/ssh_host_rsa_key", "/home/bob/notes") == "root:x:::::::\n" + "own" * 2
    assert one.inside("cat", "/etc/krb5.keytab", "/etc/ssl/private/www.key", "/etc/motd") == "layerlayerlayer"
    assert one.inside("ls", "-A", "/home", "/etc/ssl/private") == "/etc/ssl/private:\nwww.key\n\n/home:\nbob"
    assert seen(one, SECRETS) == []


def test_what_is_made_in_its_place_is_kept(subhost, lower):
    """In UPPER, over boots; and nothing else is written there."""
    one = subhost(LOWER=lower, HIDE="/home /etc/krb5.keytab /etc/ssh /var/mail").booted()
    one.sh("echo mine >/etc/krb5.keytab; mkdir /etc/krb5.dir /home/alice; echo mine >/home/alice/notes; echo x >/etc/ssh/x; rm /etc/ssh/x; "
           "mkdir /var/mail/alice")
    one.stopped()
    assert read(f"{one.upper}/etc/krb5.keytab") == read(f"{one.upper}/home/alice/notes") == "mine\n"
    assert sorted(os.listdir(one.upper)) == [".reaper", "dev", "etc", "home", "run", "sys", "var"]
    one.booted()
    assert one.inside("cat", "/etc/krb5.keytab", "/home/alice/notes") == "mine\nmine"
    assert one.sh("ls -A /home/alice /var/mail/alice /etc/ssh") == "/etc/ssh:\n\n/home/alice:\nnotes\n\n/var/mail/alice:"
    one.sh("rm -r /etc/krb5.keytab /home/alice /var/mail")
    one.stopped()
    one.booted()
    assert one.sh("ls -A /home; ls -d /etc/krb5.keytab /var/mail || true") == ""
    one.stopped()
    one.configure(LOWER=lower)      # what was hidden is seen again, but for the directory that the subhost has removed
    one.booted()
    assert seen(one, ["etc/ssh/ssh_host_rsa_key", "etc/krb5.keytab", "var/mail/alice"]) == ["etc/ssh/ssh_host_rsa_key", "etc/krb5.keytab"]


def test_what_upper_has_of_a_directory_that_was_merged(subhost, lower):
    """UPPER was used without HIDE before."""
    one = subhost(LOWER=lower).booted()
    one.sh("echo mine >/home/alice/file; echo mine >/etc/ssl/private/file")
    one.stopped()
    one.configure(LOWER=lower, HIDE="secrets")
    one.booted()
    assert one.sh("cd /home/alice; ls -A; cat file; ls -A /etc/ssl/private") == "file\nmine\nfile"
    assert seen(one, SECRETS) == []


# Paths

def test_directories_above_are_as_they_were(subhost, lower):
    write(f"{lower}/srv/a/b/c/file", SECRET)
    os.chown(f"{lower}/srv/a", 12, 34)
    os.chmod(f"{lower}/srv/a", 0o2751)
    os.chmod(f"{lower}/srv/a/b", 0o1777)
    os.setxattr(f"{lower}/srv/a/b", "trusted.overlay.impure", b"y")
    os.setxattr(f"{lower}/srv/a/b/c", "user.x", b"value")
    os.setxattr(f"{lower}/srv/a/b/c", "system.posix_acl_access", ACL)
    os.setxattr(f"{lower}/srv/a/b/c", "system.posix_acl_default", ACL)
    for number, path in enumerate(("srv", "srv/a", "srv/a/b", "srv/a/b/c")):
        os.utime(f"{lower}/{path}", ns=(number, 10 ** 18 + number))
    before = [attributes(f"{lower}/{path}") for path in ("srv", "srv/a", "srv/a/b", "srv/a/b/c")]
    look = ('from os import *; print([(s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, {n: getxattr(p, n) for n in listxattr(p) '
            'if "overlay" not in n}) for p in ("srv", "srv/a", "srv/a/b", "srv/a/b/c") for s in [lstat(p)]])')
    one = subhost(LOWER=lower, HIDE="/srv/a/b/c/file /srv/a/b/d").booted()
    found = ast.literal_eval(run("python3", "-c", look, cwd=f"/proc/{one.init}/root").stdout)
    before[2][4].clear()
    if not has_user_attributes("/dev/shm"):
        del before[3][4]["user.x"]
    assert found == before
    assert one.sh("ls -A /srv/a/b/c") == ""
    one.stopped()
    one.configure(LOWER=lower, HIDE="/srv/a/b/c")
    one.booted()
    assert ast.literal_eval(run("python3", "-c", look, cwd=f"/proc/{one.init}/root").stdout)[3][0:3] == before[3][0:3]
    assert run("python3", "-c", "import os; print(os.getxattr('srv/a/b/c', 'system.posix_acl_access'))",
               cwd=f"/proc/{one.init}/root").stdout == f"{ACL}\n"


@pytest.mark.parametrize("hide", ["/srv", "/srv/a /srv", "/srv /srv/a/file", "/srv/a/file /srv/a /srv//", "/../srv/.", "/srv/a/../a /srv/f"])
def test_a_directory_and_what_is_in_it(subhost, lower, hide):
    for path in ("a/file", "a/b/file", "f"):
        write(f"{lower}/srv/{path}", SECRET)
    one = subhost(LOWER=lower, HIDE=hide).booted()
    assert one.inside("ls", "-A", "/srv") == ("a" if hide.endswith("/f") else "")
    assert seen(one, ["srv/a/file", "srv/f"]) == []


def test_what_is_not_there(subhost, lower):
    """It is no error, nothing is made of it; and if LOWER gets it later, it is hidden."""
    one = subhost(LOWER=lower, HIDE="/none /none/none /etc/passwd/none /etc/later /etc/dir").booted()
    assert one.sh("ls -d /none /etc/later /etc/dir || true; ls -A /").count("none") == 0
    write(f"{lower}/etc/later", SECRET)
    write(f"{lower}/etc/dir/file", SECRET)
    assert seen(one, ["etc/later", "etc/dir/file"]) == []
    assert one.sh("mkdir /etc/dir; ls -A /etc/dir; echo mine >/etc/later; cat /etc/later") == "mine"


@pytest.mark.parametrize("name", ["with:colon", "comma,x", "back\\slash", "new\\nline", "*", "\u00e4", os.fsdecode(b"\xff\xfe"), "x" * 255, "(deleted)"])
def test_odd_names(subhost, lower, name):
    write(f"{lower}/srv/{name}", SECRET)
    write(f"{lower}/srv/other", "other")
    write(f"{lower}/srv/dir{name[:200]}/{name}", SECRET)
    one = subhost(LOWER=lower, HIDE=f"/srv/{name} /srv/dir{name[:200]}").booted()
    assert one.inside("ls", "-A", f"/srv/dir{name[:200]}") == "" and seen(one, [f"srv/{name}"]) == []
    assert one.inside("cat", "/srv/other") == "other"


def test_symbolic_links_lead_to_what_is_hidden(subhost, lower, directory):
    """Inside the root, wherever they lead on the host, where nothing is touched."""
    write(f"{directory}/outside/file", "outside")
    write(f"{lower}{directory}/outside/file", SECRET)
    write(f"{lower}/srv/real/file", SECRET)
    write(f"{lower}/srv/real/other", SECRET)
    os.symlink("real", f"{lower}/srv/link")
    os.symlink("/srv/link/file", f"{lower}/srv/far")
    os.symlink(f"{directory}/outside", f"{lower}/srv/out")
    os.symlink("../" * 30 + directory[1:] + "/outside/file", f"{lower}/srv/up")
    os.symlink("loop", f"{lower}/srv/loop")
    os.symlink("nowhere", f"{lower}/srv/dangling")
    os.symlink("/proc/self/root", f"{lower}/srv/proc")
    before = attributes(f"{directory}/outside")
    one = subhost(LOWER=lower, HIDE="/srv/far /srv/out /srv/loop /srv/loop/x /srv/dangling /srv/link/other /srv/proc/etc").booted()
    assert seen(one, ["srv/real/file", "srv/real/other", f"{directory}/outside/file", "srv/up"]) == []
    assert one.inside("readlink", "/srv/far") == "/srv/link/file"
    assert one.sh("ls -d /srv/loop /srv/dangling || true; ls -A /srv/real") == ""
    assert one.inside("cat", "/etc/ssh/sshd_config") == "Port 22"
    assert attributes(f"{directory}/outside") == before and read(f"{directory}/outside/file") == "outside"


@pytest.mark.parametrize("target", ["/", "..", "../../../..", "/srv/.."])
def test_a_link_to_the_root(subhost, lower, fails, target):
    os.makedirs(f"{lower}/srv")
    os.symlink(target, f"{lower}/srv/link")
    one = subhost(LOWER=lower, HIDE="/home /srv/link")
    fails(one, "HIDE: cannot hide /srv/link: it leads to the root directory")
    fails([BOOT, "--check", one.conf], "HIDE: cannot hide /srv/link: it leads to the root directory")


def test_links_in_upper_lead_nowhere_else(subhost, lower):
    """What is hidden is LOWER's, whatever the subhost has of the same name."""
    one = subhost(LOWER=lower, HIDE="/home/alice/notes")
    os.symlink("/etc", f"{one.upper}/home")
    one.booted()
    assert one.inside("cat", "/home/ssh/sshd_config") == "Port 22"


def test_sockets_fifos_and_devices(subhost, lower):
    os.makedirs(f"{lower}/srv")
    os.mkfifo(f"{lower}/srv/fifo")
    os.mknod(f"{lower}/srv/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.unlink(f"{lower}/etc/shadow")
    os.mkfifo(f"{lower}/etc/shadow")
    one = subhost(LOWER=lower, HIDE="secrets /srv/fifo /srv/null").booted(seconds=20)
    assert one.sh("ls -A /srv; ls -d /etc/shadow || true") == ""


def test_what_is_mounted_below_lower(subhost, lower):
    """It does not belong to LOWER: what it has is no reason to make anything."""
    os.makedirs(f"{lower}/mnt")
    os.chmod(f"{lower}/mnt", 0o711)
    assert run("mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", f"{lower}/mnt").returncode == 0
    try:
        write(f"{lower}/mnt/dir/file", SECRET)
        one = subhost(LOWER=lower, HIDE="/mnt/dir/file").booted()
        assert one.sh("stat -c %a /mnt; ls -A /mnt") == "711"
        one.stopped()
    finally:
        run("umount", f"{lower}/mnt")


# How the root is made

def test_several_lower_directories(subhost, lower, directory):
    for path in ("srv/first", "srv/both/first", "srv/both/x"):
        write(f"{directory}/first/{path}", SECRET)
    for path in ("srv/second", "srv/both/second", "srv/both/y", "srv/gone"):
        write(f"{lower}/{path}", SECRET)
    os.mknod(f"{directory}/first/srv/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.chmod(f"{directory}/first/srv", 0o750)
    one = subhost(LOWER=f"{directory}/first:{lower}", HIDE="secrets /srv/first /srv/second /srv/both/first /srv/both/second").booted()
    assert one.sh("ls -A /srv /srv/both; stat -c %a /srv") == "/srv:\nboth\n\n/srv/both:\nx\ny\n750"
    assert seen(one, SECRETS) == []
    one.stopped()
    one.configure(LOWER=f"{directory}/first:{lower}", HIDE="/srv/both")
    one.booted()
    assert one.sh("ls -A /srv/both") == "" and seen(one, ["srv/first", "srv/second"]) == ["srv/first", "srv/second"]


def test_lower_directories_inside_each_other(subhost, lower):
    """The outer one is made an overlay mount first; so is the host's root, beneath what is in it."""
    write(f"{lower}/opt/inner/etc/inner", SECRET)
    write(f"{lower}/opt/inner/etc/other", "other")
    one = subhost(LOWER=f"{lower}/opt/inner:{lower}", HIDE="secrets /etc/inner").booted()
    assert one.inside("cat", "/etc/other") == "other" and seen(one, [*SECRETS, "etc/inner"]) == []
    one = subhost(LAYER="layer", LOWER=f"{lower}/opt/inner:/", HIDE="secrets /etc/inner")
    os.mkdir(f"{one.base}/layer")
    one.booted()
    assert one.sh("cat /etc/other; ls -d /etc/inner || true; ls -A /root") == "other"


def test_as_many_directories_as_the_kernel_takes(subhost, lower, directory, fails):
    places = []
    for number in range(200):
        os.makedirs(f"{directory}/l/{number}/srv")
        places.append(f"{directory}/l/{number}")
    write(f"{places[150]}/srv/file", SECRET)
    one = subhost(LOWER=":".join([*places, lower]), HIDE="/srv/file").booted()
    assert one.sh("ls -A /srv") == ""
    one.stopped()
    one.configure(LOWER=":".join([*places, *places, lower]), HIDE="/srv/file")
    fails(one, "more than the kernel takes")


def test_an_upper_on_a_tmpfs(subhost, lower):
    one = subhost(LOWER=lower, UPPER="tmpfs:8M", WORK=None, HIDE="secrets /etc/motd").booted()
    one.sh("echo mine >/etc/motd; echo mine >/root/mine")
    assert one.sh("cat /etc/motd; ls -A /root") == "mine\nmine" and seen(one, SECRETS) == []
    one.stopped()
    one.booted()
    assert one.sh("ls -A /root; ls -d /etc/motd || true") == ""


def test_hibernation(subhost, lower):
    """What is hidden stays so, whatever the configuration says when the subhost is woken."""
    def shell(text):
        return run(BOOT, "--shell", one.conf, input=text)

    one = subhost(LOWER=lower, HIDE="secrets")
    assert shell("cat /home/alice/notes; echo mine >/root/mine").returncode == 0
    assert one.row()["state"] == "hibernating"
    one.configure(LOWER=lower)
    assert shell("cat /home/alice/notes; ls -A /root").stdout == "mine\n"
    one.booted()
    assert seen(one, SECRETS) == [] and one.inside("ls", "-A", "/root") == "mine"
    one.stopped()
    wait_for(one.is_gone)
    assert one.booted() and seen(one, SECRETS) == SECRETS


def test_nothing_inside_tells_of_it_or_undoes_it(subhost, lower):
    one = subhost(LOWER=lower).booted()
    without = [line.split(" ")[2] for line in mounts(one.init)]
    one.stopped()
    one.configure(LOWER=lower, HIDE="secrets")
    one.booted()
    assert [line.split(" ")[2] for line in mounts(one.init)] == without
    one.stopped()
    one.configure(LOWER=lower, HIDE="secrets", CAPABILITIES="all", SYSTEM_CALLS="all")
    one.booted()
    one.sh("mount -o remount,rw / || true; mount --bind / /tmp")
    assert seen(one, [*SECRETS, *(f"tmp/{path}" for path in SECRETS)]) == []


def test_hooks_see_the_root_as_the_subhost_does(subhost, lower):
    one = subhost()
    post = one.script("post", 'overlay-postmount; echo "$HIDE" >seen; ls -A "$LIVE/home" "$LIVE/root" >>seen; cat "$LIVE/etc/shadow" >>seen')
    one.configure(LOWER=lower, HIDE="secrets /srv", POSTMOUNT=post)
    one.booted()
    assert read(f"{one.base}/seen") == f"secrets /srv\n{one.live}/home:\n\n{one.live}/root:\n{LOCKED}"


def test_by_a_command(subhost, lower):
    one = subhost(LOWER=lower, HIDE="!echo /root secrets").booted()
    assert seen(one, SECRETS) == [] and one.inside("ls", "-A", "/root") == ""


def test_share_is_seen(subhost, lower, directory):
    write(f"{directory}/shared/file", "shared")
    one = subhost(LOWER=lower, HIDE="/home", SHARE=f"{directory}/shared:/home/shared").booted()
    assert one.sh("cat /home/shared/file; ls -A /home") == "sharedshared"


def test_a_boot_that_fails_leaves_nothing(subhost, lower, fails):
    fails(subhost(LOWER=lower, HIDE="secrets", POSTMOUNT="false"), "POSTMOUNT")
    fails(subhost(LOWER=lower, HIDE="/usr", START="/x"), "/bin/sh")


def test_a_base_that_is_not_known_is_not_taken_for_none(subhost, lower, fails, machine):
    """A boot would leave it to be read.  What is not there need not be known."""
    other, one = subhost(LOWER=lower).booted(), subhost(LOWER=lower, HIDE="secrets")
    machine.look()
    before = read(other.conf)
    write(other.conf, "BASE=.\r\n")
    why = f"cannot tell which directory is BASE of {other.conf}: "
    fails(one, why)
    fails([BOOT, "--check", one.conf], why)
    one.configure(LOWER=lower)
    done = run(BOOT, "--check", one.conf)
    assert done.returncode == 0 and why in done.stderr
    os.unlink(other.conf)
    one.configure(LOWER=lower, HIDE="secrets")
    one.booted()
    write(other.conf, before)


def test_nobody_else_boots_it_meanwhile(subhost, lower):
    """To look for the secrets of other subhosts must not give up the lock of its name."""
    one = subhost()
    one.script("post", f"overlay-postmount && ! overlay-boot {one.conf}")
    one.configure(LOWER=lower, HIDE="secrets", POSTMOUNT="./post")
    one.booted()
    assert f"{one.name} is being booted already" in one.said()


@pytest.mark.parametrize(("value", "why"), [
    ("etc/shadow", "etc/shadow is neither an absolute path nor secrets"), ("secret", "secret is neither"), ("none /x", "none is neither"),
    ("Secrets", "Secrets is neither"), ("/", "root directory"), ("/etc /..//.", "root directory"), ("!echo x", "x is neither")])
def test_wrong_values(subhost, fails, value, why):
    one = subhost(HIDE=value)
    fails(one, "HIDE: ", why)
    fails([BOOT, "--check", one.conf], "HIDE: ", why)


@pytest.mark.parametrize("settings", [{}, {"LIVE": "own"}], ids=["bind", "as it is"])
def test_where_nothing_is_beneath(subhost, own_root, fails, settings):
    one = subhost(UPPER=own_root, LOWER=own_root, HIDE="secrets", **dict.fromkeys(settings, own_root))
    fails(one, "HIDE", "UPPER is LOWER")
    fails([BOOT, "--check", one.conf], "HIDE", "UPPER is LOWER")
    one.configure(UPPER=own_root, LOWER=own_root, HIDE="none")
    one.booted()


# What --check tells

def told(one, *options):
    """The secrets that a check names."""
    done = run(BOOT, "--check", *options, one.conf)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "secrets of LOWER=" in line]
    assert len(lines) <= 1 and len(lines) == len(done.stderr.splitlines())
    return lines[0].partition(f" secrets of LOWER={one.lower}: ")[2].removesuffix("; HIDE can hide them").split(", ") if lines else []


@pytest.fixture
def over(subhost, lower):
    """A subhost over that root, configured anew by over.configure(VARIABLE=value, ...)."""
    one = subhost(LOWER=lower)
    one.lower, configure = lower, one.configure
    one.configure = lambda **settings: configure(**{"LOWER": lower, **settings})
    return one


EXPOSED = ["/etc/shadow", "/etc/gshadow", "/etc/ssh/ssh_host_rsa_key", "/etc/ssl/private", "/home", "/root", "/var/mail", "/var/spool",
           "/etc/krb5.keytab", "/var/lib/systemd/random-seed"]


def test_check_names_what_can_be_read(over, machine):
    machine.look()
    found = told(over, "--verbose")
    assert set(EXPOSED) <= set(found) and found == sorted(found)
    assert not {"/etc/passwd", "/etc/group", "/etc/ssh/sshd_config", "/etc/ssh/ssh_host_new_key-cert.pub"} & set(found)
    short = told(over)
    assert short == [*found[:8], f"and {len(found) - 8} more"]
    machine.is_as_before()
    over.configure(HIDE="secrets")
    assert told(over) == []


def test_check_names_no_more_than_is_there(over, lower):
    for path in ("home", "root", "var/mail", "var/spool", "etc", "var/backups", "var/lib", "var/cache"):
        shutil.rmtree(f"{lower}/{path}")
    write(f"{lower}/etc/shadow", "root:*:19000::::::\nalice:!:::::::\nbob:!*:::::::\n")
    write(f"{lower}/etc/passwd", "root:x:0:0:::\n")
    write(f"{lower}/etc/security/opasswd", "")
    os.makedirs(f"{lower}/var/spool/cron/crontabs")
    os.symlink("../mail", f"{lower}/var/spool/mail")
    assert told(over) == []
    write(f"{lower}/var/spool/cron/crontabs/x", "x")
    assert told(over) == ["/var/spool"]


def test_check_knows_what_hides(over, lower):
    def left():
        return set(EXPOSED) - {*told(over, "--verbose")}

    os.symlink("home", f"{lower}/people")
    over.configure(HIDE="/etc/shadow /people /var /etc/ssh")
    assert left() == {"/etc/shadow", "/home", "/var/mail", "/var/spool", "/var/lib/systemd/random-seed", "/etc/ssh/ssh_host_rsa_key"}
    over.configure(LAYER="layer")
    write(f"{over.base}/layer/etc/shadow", "own")
    os.mkdir(f"{over.base}/layer/var")
    os.setxattr(f"{over.base}/layer/var", "trusted.overlay.opaque", b"y")
    over.write("home/bob/notes", "own")
    over.write("etc/ssl", "a file")
    os.mknod(f"{over.upper}/root", stat.S_IFCHR, os.makedev(0, 0))
    os.symlink("/nowhere", f"{over.upper}/etc/krb5.keytab")
    assert left() == {"/etc/shadow", "/var/mail", "/var/spool", "/var/lib/systemd/random-seed", "/etc/ssl/private", "/root", "/etc/krb5.keytab"}
    over.configure(UPPER="tmpfs:1M", WORK=None, LAYER="layer")
    assert left() == {"/etc/shadow", "/var/mail", "/var/spool", "/var/lib/systemd/random-seed"}


def test_check_finds_other_private_keys(over, lower):
    """In /etc, by what they contain."""
    write(f"{lower}/etc/nginx/www.key", "-----BEGIN RSA PRIVATE KEY-----\nabc\n")
    write(f"{lower}/etc/nginx/www.pem", "-----BEGIN CERTIFICATE-----\nabc\n")
    os.mkfifo(f"{lower}/etc/nginx/fifo")
    os.symlink("www.key", f"{lower}/etc/nginx/link")
    over.configure(HIDE="secrets")
    assert told(over) == ["/etc/nginx/www.key"]
    over.booted()
    over.configure(HIDE="secrets /etc/nginx")
    assert told(over) == []


def test_check_tells_of_paths_that_lead_nowhere(over, lower):
    over.configure(HIDE="secrets /etc/*_key /etc/motd /etc/ssh")
    done = run(BOOT, "--check", over.conf)
    assert done.stderr.splitlines() == [f"overlay-boot: HIDE: {path} is not in LOWER" for path in ("/etc/*_key", "/etc/motd")]


def test_the_plan_says_where_the_layer_is(over):
    os.mkdir(f"{over.base}/layer")
    over.configure(HIDE="secrets /srv", LAYER="layer")
    [step] = [line for line in run(BOOT, "--check", "--verbose", over.conf).stdout.splitlines() if line.startswith("The root on LIVE: ")]
    assert step.endswith(f"{over.upper} above {over.base}/layer, a layer that hides secrets, /srv, {over.lower}")
