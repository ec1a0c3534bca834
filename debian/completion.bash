# Each prints what can stand in the place of the word $1 that has been begun.

_overlay_boot_conf() {
  compgen -f -X '!*.conf' -- "$1"
  compgen -d -- "$1"
}

# Only root is told what runs; nobody else shall be asked for a password here.
_overlay_boot_names() {
  [ "$EUID" = 0 ] || return
  overlay-go 2>/dev/null | while read -r name; do
    [[ $name != "$1"* ]] || printf '%s\n' "$name"
  done
}

_overlay_boot_conf_or_names() {
  _overlay_boot_conf "$1"
  _overlay_boot_names "$1"
}

_overlay_boot_users() {
  compgen -u -- "$1"
}

_overlay_boot_directories() {
  compgen -d -- "$1"
}

_overlay_boot_files() {
  compgen -f -- "$1"
}

_overlay_boot_size_and_file() {
  [[ ${COMP_WORDS[COMP_CWORD - 1]} == --create ]] || compgen -f -- "$1"
}

_overlay_boot_digests() {
  local layer
  for layer in /var/cache/overlay-boot/layers/"$1"*; do
    [[ $layer == *.part || ! -d $layer ]] || printf '%s\n' "${layer##*/}"
  done
}

# From COMMAND on, what that completes itself, as sudo's completion has it. Its root file system is, as a rule, the host's
# own: commands, files and users are those of the host, and nothing of a subhost is asked on behalf of a root shell.
_overlay_boot_go() {
  local at current=${COMP_WORDS[COMP_CWORD]} PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  for ((at = 1; at < COMP_CWORD; at++)); do
    case ${COMP_WORDS[at]} in
    -u | --user)
      ((at++))
      [[ ${COMP_WORDS[at]} != = ]] || ((at++))
      if ((at >= COMP_CWORD)); then
        mapfile -t COMPREPLY < <(_overlay_boot_users "${current#=}")
        return
      fi
      ;;
    -*) ;;
    *)
      if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset $((at + 1))
      else
        _command_offset $((at + 1))     # until Debian 13
      fi
      return
      ;;
    esac
  done
  _shtab_overlay_go
}
