"""What overlay-export writes is read by the tools of containers, and runs: by podman, as a Pod of Kubernetes, and by an OCI runtime.

Each tool has its own storage, in a directory of the test's.
"""
import json
import os
import shutil
import stat
import time

import pytest
from conftest import cannot_run
from machine import EXPORT, read, run, wait_for, write

TOOLS = ("podman", "skopeo", "umoci", "crun", "catatonit")
PACKAGES = "cron,openssh-server,procps"
START = "ssh /usr/local/sbin/data cron networking"
DATA = """\
#!/bin/sh
echo "$1 data, ssh $(pgrep -xc sshd), cron $(pgrep -xc cron)" >>/srv/log
case $1 in
start) sleep 1000 & echo $! >/run/data.pid ;;
stop) kill "$(cat /run/data.pid)" ;;
esac
"""
CONF = """\
[network]
network_backend="netavark"
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
"""
pytestmark = pytest.mark.deadline(900)


@pytest.fixture(scope="module")
def debian(debian_root):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        cannot_run(f"there is no {' '.join(missing)}")
    return debian_root("containers", PACKAGES, seconds=800)


@pytest.fixture
def podman(directory):
    """podman COMMAND..., which succeeds; what it prints."""
    write(f"{directory}/containers.conf", CONF)
    words = ("podman", "--root", f"{directory}/storage", "--runroot", f"{directory}/run", "--storage-driver", "vfs", "--tmpdir", f"{directory}/tmp")

    def call(*arguments, seconds=300):
        done = run(*words, *arguments, env={"CONTAINERS_CONF": f"{directory}/containers.conf"}, seconds=seconds)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    yield call
    call("pod", "rm", "--all", "--force")
    call("rm", "--all", "--force")


@pytest.fixture
def exported(subhost, debian, directory):
    """A subhost with services that runs, of which an image was written; and the Pod."""
    one = subhost(LOWER=debian, START=START, PUBLISH="10022:22", SHARE=f"{directory}/shared:/srv/shared", LOWER_MOUNTS="no")
    os.mkdir(f"{directory}/shared")
    write(f"{directory}/shared/file", "shared")
    one.write("usr/local/sbin/data", DATA, 0o755)
    one.write("etc/ssh/sshd_config.d/own.conf", "UseDNS no\n")
    one.booted(*["networking"] * (not os.path.exists(f"{debian}/etc/init.d/networking")))
    one.sh("rm /etc/ssh/ssh_host_*; ssh-keygen -A; service ssh restart; echo data >/srv/data; rm /etc/motd; mv /etc/cron.daily /etc/cron.often; chown 7:8 /srv/data; rm /srv/log")
    done = run(EXPORT, "--kube", "--compress", "zstd", one.name, f"{directory}/image.tar", seconds=300)
    assert (done.returncode, done.stderr) == (0, "")
    write(f"{directory}/pod.json", done.stdout)
    one.image = f"localhost/{one.name}:latest"
    one.pod = json.loads(done.stdout)
    return one


def are_up(inside):
    """Whether the services run, as a command inside sees them."""
    said = inside("ps", "-eo", "comm=").split()
    return {"sshd", "cron", "sleep"} <= set(said)


def check_log(said):
    """The services were started in the order of START, and stopped in reverse order."""
    assert said == "start data, ssh 1, cron 0\nstop data, ssh 1, cron 0\n"


def test_podman_runs_it(exported, podman, directory):
    podman("load", "-q", "-i", f"{directory}/image.tar")
    podman("run", "-d", "--name", "one", "--network", "none", "-v", f"{directory}/shared:/srv/shared", exported.image)

    def inside(*words):
        return podman("exec", "one", *words)

    wait_for(lambda: are_up(inside), 60)
    assert inside("cat", "/srv/data", "/srv/shared/file") == "data\nshared"
    assert inside("stat", "-c", "%u:%g", "/srv/data") == "7:8\n"
    assert set(inside("ls", "/etc").split()) & {"motd", "cron.daily", "cron.often"} == {"cron.often"}
    assert inside("sh", "-c", "grep -c :0016 /proc/net/tcp").strip() != "0"
    begin = time.monotonic()
    podman("stop", "-t", "50", "one")
    assert time.monotonic() - begin < 40
    assert podman("inspect", "one", "--format", "{{.State.ExitCode}}").strip() == "0"
    podman("cp", "one:/srv/log", f"{directory}/log")
    check_log(read(f"{directory}/log"))
    assert "service ssh stop" in podman("logs", "one")


def test_kubernetes_runs_it(exported, podman, directory):
    """Its shape is what podman takes, with the ports of the host, and with the directory that is shared."""
    podman("load", "-q", "-i", f"{directory}/image.tar")
    podman("kube", "play", f"{directory}/pod.json")
    name = f"{exported.pod['metadata']['name']}-{exported.pod['spec']['containers'][0]['name']}"

    def inside(*words):
        return podman("exec", name, *words)

    wait_for(lambda: are_up(inside), 60)
    assert inside("cat", "/srv/data", "/srv/shared/file") == "data\nshared"
    found = json.loads(podman("inspect", name))[0]
    assert found["HostConfig"]["CapDrop"] and f"{directory}/shared" in str(found["Mounts"])
    assert "10022" in podman("port", "--all")
    podman("pod", "stop", "-t", "50", exported.pod["metadata"]["name"])
    podman("cp", f"{name}:/srv/log", f"{directory}/log")
    check_log(read(f"{directory}/log"))


def test_a_runtime_runs_it(exported, directory):
    """skopeo copies it, umoci unpacks it, crun runs it."""
    done = run("skopeo", "copy", f"oci-archive:{directory}/image.tar", f"oci:{directory}/layout:one", seconds=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(run("skopeo", "inspect", f"oci:{directory}/layout:one").stdout)
    assert told["Labels"]["overlay-boot.START"] == START and len(told["Layers"]) == 2
    # docker-save(1)'s format, and umoci of Debian 12, know gzip only.
    assert run(EXPORT, exported.name, f"{directory}/plain", "one", seconds=300).returncode == 0
    done = run("skopeo", "copy", f"oci:{directory}/plain:one", f"docker-archive:{directory}/docker.tar:one:1", seconds=300)
    assert done.returncode == 0, done.stderr
    done = run("umoci", "unpack", "--image", f"{directory}/plain:one", f"{directory}/bundle", seconds=300)
    assert done.returncode == 0, done.stderr
    compare(f"{directory}/bundle/rootfs", f"/proc/{exported.row()['pid']}/root")
    exported.stopped()
    run_bundle(f"{directory}/bundle", exported.name)


def compare(unpacked, live):
    """What was unpacked is what the subhost sees, but for what differs in every image."""
    wrong = []
    for top in ("etc", "usr", "srv", "var/lib", "opt"):
        for place, directories, names in os.walk(f"{live}/{top}"):
            inside = os.path.relpath(place, live)
            directories[:] = [name for name in directories if f"{inside}/{name}" not in ("srv/shared",)]
            for name in (*directories, *names):
                path = f"{inside}/{name}"
                if hidden(path):
                    continue
                one, other = f"{live}/{path}", f"{unpacked}/{path}"
                if not os.path.lexists(other):
                    wrong.append(f"{path} is missing")
                elif facts(one) != facts(other):
                    wrong.append(f"{path}: {facts(one)} {facts(other)}")
        for place, directories, names in os.walk(f"{unpacked}/{top}"):
            inside = os.path.relpath(place, unpacked)
            wrong += [f"{inside}/{name} is too much" for name in (*directories, *names) if not os.path.lexists(f"{live}/{inside}/{name}")]
    assert wrong == []


# Of a Debian that was made just now, which has a secret of each of these kinds.
SECRETS = ("etc/machine-id", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "var/lib/dbus/machine-id",
           "var/cache/debconf", "etc/shadow", "etc/gshadow", "etc/security/opasswd")


def hidden(path):
    return path.startswith(SECRETS)


def facts(path):
    """What can be told of a file, but the time of directories, which what unpacks it changes."""
    found = os.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    known = [kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid]
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            known += [int(found.st_mtime), found.st_size, hash(file.read())]
    if kind == stat.S_IFLNK:
        known.append(os.readlink(path))
    return known


def run_bundle(bundle, name):
    """Have crun run it, on its own, until it is asked to end."""
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
    config["linux"].pop("resources", None)
    write(f"{bundle}/config.json", json.dumps(config))
    words = ("crun", "--cgroup-manager=disabled", "--root", f"{bundle}/state")
    with open(f"{bundle}/said", "wb") as said:
        done = run(*words, "run", "--detach", "--bundle", bundle, name, stdout=said, stderr=said)
    assert done.returncode == 0, read(f"{bundle}/said")
    try:
        wait_for(lambda: are_up(lambda *arguments: run(*words, "exec", name, *arguments).stdout), 60)
        assert run(*words, "kill", name, "TERM").returncode == 0
        wait_for(lambda: '"running"' not in run(*words, "state", name).stdout, 60)
    finally:
        run(*words, "delete", "--force", name)
    check_log(read(f"{bundle}/rootfs/srv/log"))
