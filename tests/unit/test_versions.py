"""Which version of a package is later, as dpkg --compare-versions has it."""
import itertools
import random
import subprocess

import pytest
from overlay_boot.dpkg import Stanza
from overlay_boot.packages.dependencies import Present
from overlay_boot.packages.version import is_newer

# Each later than the one before: deb-version(7), and Debian Policy 5.6.12.
ORDER = ["~~", "~~a", "~", "", "0.9", "1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0-10", "1.0a", "1.0+x", "1.0.1", "1.2", "1.10",
         "1:0.1", "2:0", "10:0"]


@pytest.mark.parametrize("number", range(len(ORDER) - 1))
def test_the_order(number):
    assert is_newer(ORDER[number + 1], ORDER[number]) and not is_newer(ORDER[number], ORDER[number + 1])


@pytest.mark.parametrize(("one", "other"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("a", "a0")])
def test_the_same(one, other):
    assert not is_newer(one, other) and not is_newer(other, one)


def test_as_dpkg_has_it():
    chance = random.Random(1)

    def valid(version):
        return subprocess.run(["dpkg", "--validate-version", version], stderr=subprocess.DEVNULL, check=False).returncode == 0

    versions = [found for found in (chance.choice(["", "1:"]) + "".join(chance.choice("01.9aZ+~-") for _ in range(chance.randint(1, 6))) for _ in range(120))
                if valid(found)]
    for one, other in itertools.pairwise(versions):
        done = subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False)
        assert is_newer(one, other) == (done.returncode == 0), (one, other)


def stanza(name, version, **fields):
    return Stanza({"Package": f" {name}", "Version": f" {version}", **{field.replace("_", "-"): f" {value}" for field, value in fields.items()}})


@pytest.mark.parametrize(("needs", "missing"), [
    ("a", []), ("a (>= 1.2)", []), ("a (>> 1.2)", ["a (>> 1.2)"]), ("a(<<2),b", ["b"]), ("b | a", []), ("v", []), ("v (= 3)", []),
    ("w", []), ("w (>= 1)", ["w (>= 1)"]), ("a:any, c  (<= 1)", ["c (<= 1)"]), ("", [])])
def test_what_a_package_needs(needs, missing):
    present = Present([stanza("a", "1.2"), stanza("p", "1", Provides="v (= 3), w")])
    assert present.missing(stanza("x", "1", Depends=needs)) == missing
