# shellcheck shell=sh
# For tests/suites, routes, upgrade and so on: roots of Debian's suites, each of which is used once and thrown away.

CACHE=/var/cache/overlay-boot-suites
# shellcheck disable=SC2034 # for who reads this
SUITES="bookworm trixie sid"
here=$(. /etc/os-release && echo "$VERSION_CODENAME")

# The tree without what .gitignore names; git itself may not be there.
tree() { tar --exclude-vcs --exclude-vcs-ignores --sort=name "$@" -cf - .; }

# sources SUITE: the Debian mirrors of this machine's own apt sources, with the suite exchanged
sources() {
	# shellcheck disable=SC2016 # apt fills these in
	apt-get indextargets --format '$(LABEL) $(SITE) $(RELEASE)' 'Created-By: Packages' | sort -u |
		while read -r label site release; do
			case $label,$1,$release in
			Debian,*,"$here") echo "deb $site $1 main" ;;
			Debian*,sid,*) ;;
			Debian,*,*-backports*) ;;
			Debian,*|Debian-Security,*) echo "deb $site $1${release#"$here"} main" ;;
			esac
		done
}

# What this machine's own apt needs to reach its mirrors, such as a proxy.
apt_options() { apt-config dump | grep -E '^Acquire::(Check-|http|https|Retries)'; }

# bootstrap KIND SUITE INCLUDED [HOOK...]: CACHE/SUITE.KIND.tar, unless there is one of this week
bootstrap() {
	tar=$CACHE/$2.$1.tar
	mkdir -p "$CACHE" build
	exec 7<"$CACHE"
	flock 7
	if [ -z "$(find "$tar" -mtime -7 2>/dev/null)" ]; then
		echo "making a root: $2, $1"
		packages mmdebstrap
		sources "$2" >build/sources.list
		apt_options >build/apt.conf
		suite=$2 included=$3
		shift 3
		rm -f "$tar"
		quietly build/mmdebstrap.log mmdebstrap --mode=root --format=tar --variant=minbase --skip=cleanup/apt/lists \
			--aptopt=build/apt.conf --include="$included" "$@" "$suite" "$tar.new" build/sources.list
		mv "$tar.new" "$tar"
	fi
	flock -u 7
}

# What every package build has; what this one needs besides; and what looks at the result.
build_root() {
	bootstrap build "$1" build-essential,fakeroot,lintian,blhc,python3-all-dev,python3-stdeb \
		--customize-hook='mkdir -p "$1/tmp/tree/debian" && cp debian/control debian/changelog "$1/tmp/tree/debian"' \
		--customize-hook='chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get -y build-dep --no-install-recommends /tmp/tree' \
		--customize-hook='rm -r "$1/tmp/tree"'
}

# What debootstrap calls a minimal base, in which a dependency that is not declared shows.
plain_root() { bootstrap plain "$1" apt; }

# inside KIND SUITE TEXT [ARGUMENT...]: root runs this shell text in a root of this kind, in namespaces, with the tree in
# /tree; what it leaves in /out is in build/suites/SUITE.
inside() { with_root 'exec chroot . /bin/sh -euc "cd /tree; $text" sh "$@"' "$@"; }

# beside KIND SUITE TEXT [ARGUMENT...]: the same on the host, in the directory that the root is in
beside() { with_root 'exec /bin/sh -euc "$text" sh "$@"' "$@"; }

with_root() {
	how=$1 kind=$2 suite=$3
	shift 3
	"${kind}_root" "$suite"
	mkdir -p build/root "build/suites/$suite"
	tree >"build/tree.$kind.tar"
	unshare --mount --pid --fork --kill-child --ipc --uts --propagation private \
		sh -euc "$ENTER $how" sh "$CACHE/$suite.$kind.tar" "build/tree.$kind.tar" "build/suites/$suite" "$@"
}

# shellcheck disable=SC2016
ENTER='
	mount -t tmpfs -o mode=755 root build/root
	tar -xpf "$1" -C build/root --xattrs-include="*"
	mkdir build/root/tree build/root/out
	tar -xf "$2" -C build/root/tree --no-same-owner
	mount --bind "$3" build/root/out
	text=$4
	shift 4
	cd build/root
	cp /etc/resolv.conf etc
	hostname "suite"
	printf "#!/bin/sh\nexit 101\n" >usr/sbin/policy-rc.d
	chmod 755 usr/sbin/policy-rc.d
	mount -t proc proc proc
	mount -t sysfs -o ro sysfs sys
	mount -t tmpfs -o mode=755 run run
	mkdir -p dev/pts dev/shm run/lock
	mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
	rm -f dev/ptmx
	ln -s pts/ptmx dev/ptmx
	mount -t tmpfs -o mode=1777 shm dev/shm
	export HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
'

# built SUITE: the package of this tree, built in this suite, in build/suites/SUITE; at once, if nothing has changed
built() {
	stamp=$(tree --exclude=./bench --mtime=@0 --owner=0 --group=0 --mode=go-w | sha256sum)
	if [ "$stamp" != "$(cat "build/suites/$1/stamp" 2>/dev/null)" ]; then
		rm -rf "build/suites/$1"
		echo "building for $1"
		inside build "$1" 'sh tests/shell/from-source /home/builder /out'
		echo "$stamp" >"build/suites/$1/stamp"
	fi
}
