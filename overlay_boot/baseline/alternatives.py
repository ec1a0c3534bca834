"""The alternatives, as update-alternatives(1) chooses them by itself among what packages brought.

It does so itself: from copies of the system's records, in the confinement, over an /etc/alternatives that is empty.
What it makes in /usr, beside what the system has there, is not kept.
"""
from .shipped import OF_ADMINISTRATORS, OF_PACKAGES

# The patterns of a case in the shell.  No package's path has .. in it.
FOREIGN = "|".join(f"{directory}*" for directory in ("*/../", *OF_ADMINISTRATORS))
SHIPPED = "|".join(f"{directory}*" for directory in OF_PACKAGES)

# A choice that no package can have brought is removed, and a group of which nothing is left, or which cannot be read.
# What fails is told on descriptor 3: see confinement.py.
SCRIPT = f"""\
(
alternatives() {{ update-alternatives --quiet --log /dev/null "$@" </dev/null; }}
for record in "$DPKG_ROOT/var/lib/dpkg/alternatives"/*; do
    name=${{record##*/}}
    alternatives --list "$name" | while IFS= read -r path; do
        case $path in
        {FOREIGN}) ;;
        {SHIPPED}) continue ;;
        esac
        alternatives --remove "$name" "$path"
    done
    if alternatives --list "$name"; then
        alternatives --auto "$name" || printf 'alternative %s\\n' "$name" >&3
    else
        rm -f "$record"
    fi
done
)
"""
