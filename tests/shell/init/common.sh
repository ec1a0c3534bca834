# shellcheck shell=sh
# For the scripts beside it, which run as root in a fresh machine, with this directory and the package on /share:
# test_init.py. Every expectation is told; the exit status is for all of them.
failed=0
PATIENCE=60     # seconds, on emulation

# expect WHAT COMMAND...
expect() {
	what=$1
	shift
	if "$@"; then
		echo "ok: $what"
	else
		echo "FAILED: $what: $*"
		# shellcheck disable=SC2034 # the exit status
		failed=1
	fi
}

# eventually WHAT COMMAND...: at last
eventually() {
	what=$1
	shift
	left=$PATIENCE
	until "$@" || [ $left = 0 ]; do
		sleep 1
		left=$((left - 1))
	done >/dev/null 2>&1
	expect "$what" "$@"
}

# status NUMBER COMMAND...: whether that is its exit status
status() {
	wanted=$1
	shift
	got=0
	"$@" || got=$?
	[ $got = "$wanted" ]
}

not() { ! "$@"; }

install_package() {
	(apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install /share/*.deb) \
		>/tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
}

# subhost NAME [LINE...]: one with a service that tells when it is stopped
subhost() {
	name=$1
	shift
	mkdir -p "/opt/$name/root/opt" "/opt/$name/work" "/opt/$name/live"
	printf '%s\n' BASE=. START=/opt/service "$@" >"/opt/$name/$name.conf"
	cat >"/opt/$name/root/opt/service" <<-'END'
		#!/bin/sh
		echo "$1 of $(hostname)"
		case $1 in
		start) sleep 1000000 & echo $! >/run/service.pid ;;
		stop) echo stopped >>/stopped ;;
		esac
	END
	chmod 755 "/opt/$name/root/opt/service"
}

state() { overlay-ls | awk -v name="$1" '$1 == name { print $2 }'; }
pid() { overlay-ls | awk -v name="$1" '$1 == name { print $3 }'; }
keeper() { awk '{ print $4 }' "/proc/$(pid "$1")/stat"; }
group() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
is() { [ "$(state "$1")" = "$2" ]; }
contains() { printf '%s\n' "$1" | grep -qF -- "$2"; }

# serves NAME: its service was started
serves() { [ -n "$(overlay-go "$1" cat /run/service.pid)" ]; }

# in_order NAME: its service was stopped, and that is told once
in_order() { [ -e "/opt/$1/root/stopped" ] && rm "/opt/$1/root/stopped"; }

nothing_left() {
	[ ! -e /run/overlay-boot ] && [ -z "$(ls /run/netns 2>/dev/null)" ] &&
		[ -z "$(find /sys/fs/cgroup -type d -name overlay-boot)" ]
}
