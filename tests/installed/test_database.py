"""The example database.conf, as it stands: a database server whose root is new at every boot, and whose data stays.

PostgreSQL is real, and killed in the middle of transactions.
"""
import os
import signal

import pytest
from conftest import cannot_run
from machine import (
    BASELINE,
    BOOT,
    GO,
    TREE,
    descendants,
    is_alive,
    kill,
    loops,
    one_line,
    read,
    run,
    start,
    wait_for,
    write,
)
from network import files_of

EXAMPLES = f"{TREE}/conf-examples"
SLOW = 60           # seconds, for a start of the database with initdb(1), or a recovery

# Each transaction inserts so many rows, one by one; every third is rolled back. What has ended is told at once.
ROWS = 4
WRITE = """
    number=0
    while :; do
        number=$((number + 1)) end=commit
        [ $((number % 3)) -ne 0 ] || end=rollback
        echo 'begin;'
        for row in $(seq {rows}); do echo "insert into written values ({writer}, $number, $row);"; done
        printf '%s\\n' "$end; \\echo $end $number"
    done | stdbuf -oL psql -qv ON_ERROR_STOP=1"""
ENOUGH = 60         # transactions of each writer, before it is killed


@pytest.fixture(scope="module")
def baseline(run_directory):
    """A baseline of this machine.  Packages that the machine has not got at hand are no matter here."""
    for program, package in (("/usr/bin/pg_ctlcluster", "postgresql"), ("/usr/bin/zstd", "zstd")):
        if not os.path.exists(program):
            cannot_run(f"{package} is not installed")
    made = f"{run_directory}/host-baseline"
    done = run(BASELINE, "--offline", made, seconds=250)
    assert done.returncode in (0, 3), done.stderr
    return made


@pytest.fixture
def database(subhost, baseline, own_cache, machine):
    """A subhost as the example has it, made by the words of the example."""
    one = subhost()
    for unneeded in (one.upper, one.work, one.live):
        os.rmdir(unneeded)
    version = max(os.listdir("/usr/lib/postgresql"), key=int)
    text = read(f"{EXAMPLES}/database.conf").replace("/15/", f"/{version}/").replace("../baseline", baseline)
    write(one.conf, text)
    network = "root/etc/network/interfaces"
    for path, content in {**files_of(text), network: files_of(read(f"{EXAMPLES}/cables.conf"))[network]}.items():
        write(f"{one.base}/{path}", content)
    recipe = "".join(line[1:] for line in text.partition("\nBASE=")[0].splitlines(True) if line.startswith("#     "))
    assert "overlay-baseline" in recipe
    done = run("sh", "-ec", recipe.replace("overlay-baseline", "test -d"), cwd=one.base)
    assert (done.returncode, done.stderr) == (0, "")
    machine.look()
    yield one
    one.stop()


def ready(one):
    """Boot it; the database answers."""
    one.booted()
    wait_for(lambda: sql(one, "select 1").stdout == "1\n", SLOW, "the database answers")


def sql(one, statement):
    return one.go("psql", "-qAtc", statement, user="postgres")


def log(one):
    """What the database has told since it was made."""
    return one.sh("cat /data/main/log/*.log")


class Writer:
    """A client of the database, which reports every transaction that has ended to a file outside."""

    def __init__(self, one, number):
        self.number = number
        self.report = f"{one.base}/{number}.report"
        with open(self.report, "wb") as file:
            self.process = start(GO, "-u", "postgres", one.name, "sh", "-c", WRITE.format(rows=ROWS, writer=number), stdout=file)

    def committed(self):
        """The numbers of the transactions of which it knows that they are."""
        lines = [line.split() for line in read(self.report).split("\n")[:-1]]
        return {int(number) for end, number in lines if end == "commit"}

    def ended(self):
        self.process.communicate(timeout=20)


def written(one):
    """{writer: numbers of its transactions that are in the database}, which are there as a whole."""
    found = {}
    for line in sql(one, "select writer, number, count(*) from written group by 1, 2").stdout.splitlines():
        writer, number, rows = map(int, line.split("|"))
        assert rows == ROWS and number % 3, f"{number} of {writer} has {rows} rows"
        found.setdefault(writer, set()).add(number)
    return found


def nothing_is_left(one, machine):
    """Nor is the file system in the image in need of a repair."""
    wait_for(lambda: not [loop for loop in loops() if one.base in loop])
    machine.is_as_before()
    done = run("e2fsck", "-fn", f"{one.base}/data.img")
    assert done.returncode == 0, done.stdout


# Killed, and stopped

def kill_init(one):
    kill(one.init, signal.SIGKILL)
    wait_for(one.is_gone)


def kill_keeper(one):
    init = one.init
    kill(one.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))


def kill_all(one):
    init, keeper = one.init, one.keeper
    for process in (keeper, *descendants(init), init):
        kill(process, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))


@pytest.mark.parametrize("killed", [kill_init, kill_keeper, kill_all])
def test_what_was_committed_outlives_a_kill(database, killed, machine):
    ready(database)
    assert sql(database, "create table written (writer int, number int, row int)").returncode == 0
    database.sh("echo former >/etc/former; echo former >/var/lib/former; rm /etc/services")
    writers = [Writer(database, number) for number in range(3)]
    wait_for(lambda: all(len(writer.committed()) >= ENOUGH for writer in writers), what="transactions are committed")
    killed(database)
    for writer in writers:
        writer.ended()
    assert one_line(database.stop()) == f"overlay-stop: {database.name} is not running"
    nothing_is_left(database, machine)
    ready(database)
    assert database.sh("cd /; ls etc/former var/lib/former etc/services 2>/dev/null || true") == "etc/services"
    assert "automatic recovery in progress" in log(database)
    found = written(database)
    for writer in writers:
        assert writer.committed() <= found[writer.number]
        assert len(found[writer.number] - writer.committed()) <= 1      # whose report was cut off
    database.stopped()
    nothing_is_left(database, machine)


def test_a_stop_shuts_it_down(database, machine):
    """In the database's own words; the next root is new as well."""
    ready(database)
    assert sql(database, "create table kept as select 42 as x").returncode == 0
    database.sh("echo former >/etc/former")
    database.stopped()
    nothing_is_left(database, machine)
    ready(database)
    said = log(database)
    assert "database system is shut down" in said and "database system was shut down at" in said
    assert "interrupted" not in said and "not properly shut down" not in said
    assert sql(database, "select x from kept").stdout == "42\n"
    assert database.go("cat", "/etc/former").returncode == 1
    database.stopped()
    nothing_is_left(database, machine)


def test_a_first_boot_that_is_killed(database):
    """In the middle of initdb(1): the next one makes the cluster."""
    boot = start(BOOT, database.conf)
    wait_for(lambda: database.go("test", "-e", "/data/new/PG_VERSION").returncode == 0)
    assert "initdb" in descendants(database.init).values()
    kill_init(database)
    assert boot.wait(20) == 1 and b"has ended while its services were being started" in boot.stderr.read()
    ready(database)
    assert database.sh("ls /data") == "main"


def test_clients_reach_it_by_the_network(database):
    """At the address that the layer gives it, and with a password only."""
    ready(database)
    assert sql(database, "create role client login password 'secret'").returncode == 0
    place = "host=192.168.5.2 user=client dbname=postgres"
    assert database.inside("psql", "-Atc", "select inet_server_addr()", f"{place} password=secret") == "192.168.5.2"
    refused = database.go("psql", "-w", place)
    assert refused.returncode == 2 and "password" in refused.stderr
