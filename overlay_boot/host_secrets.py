"""The secrets of a host: what HIDE= secrets hides, what overlay-boot --check tells of, and what no baseline has."""
from . import beneath, config, files, paths, state
from .errors import Failure, reason
from .subhosts_conf import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORDS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
BACKUPS = ("/etc/shadow-", "/etc/gshadow-")         # of the latter
FORMER_PASSWORDS = (*BACKUPS, "/etc/security/opasswd", "/var/backups")
SSH, SSH_HOST_KEYS = "/etc/ssh", "ssh_host_"        # a directory, and how the names begin in it: sshd(8)
OF_MACHINE = ("/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret")
# Where Debian's packages have private keys, and what they log in with elsewhere; there is nothing else in these.
KEYS = (
    "/etc/ssl/private", "/etc/letsencrypt", "/etc/wireguard", "/etc/swanctl/private", "/etc/ipsec.d/private",
    "/etc/ipsec.secrets", "/etc/krb5.keytab", "/etc/bind/rndc.key", "/etc/dkimkeys", "/etc/cryptsetup-keys.d",
    "/etc/credstore", "/etc/credstore.encrypted", "/var/lib/tor", "/var/lib/samba/private", "/var/lib/sss/secrets",
)
LOGINS = (
    "/etc/NetworkManager/system-connections", "/var/lib/iwd", "/etc/ppp/chap-secrets", "/etc/ppp/pap-secrets",
    "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/etc/exim4/passwd.client", "/etc/postfix/sasl_passwd",
    "/etc/postfix/sasl_passwd.db", "/etc/msmtprc", "/etc/netrc", "/etc/mysql/debian.cnf",
    "/var/cache/debconf/passwords.dat",
)
HOMES, MAIL, SPOOLS = ("/home", "/root"), "/var/mail", ("/var/spool",)
LAYERS = "/var/cache/overlay-boot"                  # of all subhosts

# What tells one machine from another, and accounts that it had before.
IDENTITIES = ("/etc/hostname", "/etc/mailname", "/var/lib/dbus/machine-id")
MACHINE_ID = "/etc/machine-id"                      # machine-id(5)
FORMER_ACCOUNTS = ("/etc/passwd-", "/etc/group-", "/etc/subuid-", "/etc/subgid-")

KEY, LARGEST_KEY = b"PRIVATE KEY-----", 1 << 16     # in a file, as PEM and OpenSSH write it


def files_and_directories(below: int, lower: list[str], name: str, base: str) -> "Iterator[str]":
    """Yield the paths of those that are hidden as a whole: neither PASSWORDS nor SPOOLS.

    below is a descriptor of the root that the directories of LOWER make, base the BASE of the subhost NAME over them.
    """
    yield from (*FORMER_PASSWORDS, *OF_MACHINE, *KEYS, *LOGINS, *HOMES, MAIL, LAYERS)
    for key in beneath.names(below, SSH, beneath.INSIDE):
        if key.startswith(SSH_HOST_KEYS):
            yield f"{SSH}/{key}"
    roots = [paths.real(directory).rstrip("/") + "/" for directory in lower]
    for directory in {base, *bases(name)}:
        for root in roots:
            path = "/" + directory.removeprefix(root)
            if directory.startswith(root) and path.count("/") > 1:      # else it is /etc, where somebody has a CONF
                yield path


def bases(booting: str = "") -> "Iterator[str]":
    """Yield BASE of each subhost that has a state or is listed in /etc/subhosts.conf, unless a command prints it.

    The state of the one that is booting is left alone.  Raises Failure for a BASE that is somewhere, and not known.
    """
    for conf in {*listed(), *(record.config for _, record in state.noted(but=booting) if record.config)}:
        try:
            here, base = paths.parent(paths.real(conf)), config.read(conf).get("BASE", ["."])[0]
            if not base.startswith("!"):
                yield paths.real(paths.join(here, base))
        except (OSError, Failure, ValueError) as error:
            if getattr(error, "errno", None) not in files.NOWHERE:
                raise Failure(f"cannot tell which directory is BASE of {conf}: {reason(error)}") from None
