"""overlay-boot: subhosts on one kernel.  The story of a boot is in subhost.py."""

__version__ = "2.0.0"

PROGRAMS = "/usr/libexec/overlay-boot"
