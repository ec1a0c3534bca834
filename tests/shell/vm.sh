# shellcheck shell=sh
# For tests/machines and CI, after tests/shell/apt.sh.

# runner SUITE INIT: the command that runs another one in a machine of Debian with this init system, which ../shared/vm
# makes; nothing where that is not there
runner() {
	vm=../shared/vm machine=/var/tmp/overlay-boot-machines/$1-$2
	[ -x $vm/vmrun ] || return 0
	packages mmdebstrap qemu-system-x86 qemu-utils e2fsprogs socat >&2
	mkdir -p "${machine%/*}"
	[ -e "$machine.qcow2" ] || $vm/mkvm "$1" "$2" "$machine.qcow2" >&2
	echo "$vm/vmrun $machine"
}
