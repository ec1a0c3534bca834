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

# A root file system is, as a rule, the host's own: its commands and users are those of the host.
_overlay_boot_commands() {
  compgen -c -- "$1"
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
