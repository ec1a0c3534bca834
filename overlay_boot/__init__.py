"""overlay-boot: subhosts on one kernel.  The stories are boot.py and stop.py."""

__version__ = "2.1.0"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = "/usr/libexec/overlay-boot"
BASELINE_MARK = "trusted.overlay_boot.baseline"     # an xattr(7) of the directory: it is a baseline
