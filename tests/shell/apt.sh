# shellcheck shell=sh
# For the commands in tests, and what they run in roots: installs what is missing.

[ "$(id -u)" = 0 ] || { echo "$0: must be run as root" >&2; exit 1; }
# Debian's own tools, whatever else the caller has in front of them.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

# quietly LOG COMMAND...: what it prints is for LOG, and shown only where it fails; on a terminal, its last line meanwhile
quietly() {
	log=$1
	shift
	mkdir -p "${log%/*}"
	: >"$log"
	follower=
	case $([ -t 2 ] && echo "${TERM:-dumb}") in
	"" | dumb) ;;
	*) follow "$log" & follower=$! ;;
	esac
	status=0
	"$@" >"$log" 2>&1 </dev/null || status=$?
	[ -z "$follower" ] || {
		kill "$follower"
		wait "$follower" 2>/dev/null || :
		printf '\r\033[K' >&2
	}
	[ $status = 0 ] || {
		cat "$log" >&2
		echo "$0: failed: $*" >&2
		return $status
	}
}

# follow LOG: shows its last line, in a line that renews itself, as long as the caller is there
follow() {
	while kill -0 $$ 2>/dev/null; do
		columns=$(stty size <&2 | cut -d ' ' -f 2)
		[ "$columns" -gt 1 ] || columns=80
		line=$(tail -c 1000 "$1" | tr '\r' '\n' | tr -d '\000-\011\013-\037\177' | grep . | tail -n 1 |
			cut -c "-$((columns - 1))")
		printf '\r\033[K%s' "$line" >&2
		sleep 0.3
	done
}

missing() {
	for package; do
		[ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
	done
}

# apt ARGUMENT...: apt-get without questions, and without starting a daemon that it installs. New package lists are
# fetched only where it fails with those that are there.
apt() (
	exec 9<tests/shell/apt.sh
	flock 9
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		trap 'exit 130' HUP INT TERM
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
	fi
	export DEBIAN_FRONTEND=noninteractive
	set -- -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
	apt-get "$@" || { apt-get update && apt-get "$@"; }
)

# packages NAME...
packages() {
	# shellcheck disable=SC2046 # names have no blanks
	set -- $(missing "$@")
	[ $# = 0 ] || { echo "installing $*"; quietly build/apt.log apt install "$@"; }
}
