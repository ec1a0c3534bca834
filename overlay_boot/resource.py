"""A subhost as a resource of a cluster: what the resource agent ocf:overlay-boot:subhost does.

Its actions and their exit statuses are those of the Open Cluster Framework's resource agent API, 1.0.
"""
import posix

from . import __version__, files, paths, running, state, subhosts_conf
from .config import Config, name_in
from .errors import Failure
from .running import NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# OCF_SUCCESS, OCF_ERR_GENERIC and so on; pcs(8) and crm_mon(8) show their meanings.
SUCCESS, ERROR, ERROR_ARGUMENTS, ERROR_UNIMPLEMENTED, ERROR_PERMISSION, ERROR_INSTALLED, ERROR_CONFIGURED, STOPPED = \
    range(8)

WITH_SERVICES = 10      # OCF_CHECK_LEVEL: a monitor asks for the services as well


class Unfit(Failure):
    """What cannot be done here, or nowhere in the cluster, as its status says."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Resource:
    """The subhost of a configuration file, as one node of the cluster sees it."""

    __slots__ = ("conf",)

    def __init__(self, conf: str | None) -> None:
        """Raises Unfit if the parameter is missing, or leads to different files."""
        if not conf:
            raise Unfit(ERROR_CONFIGURED, "the parameter conf is missing")
        if conf[0] != "/":
            raise Unfit(ERROR_CONFIGURED, f"conf={conf}: not an absolute path")
        self.conf = conf

    def config(self) -> Config:
        """Return its configuration.  Raises Unfit for this node: others may have another file there."""
        if not files.kind(self.conf):
            raise Unfit(ERROR_INSTALLED, f"{self.conf}: no such file on this node")
        try:
            return Config(self.conf, "overlay-boot")
        except Failure as failure:
            raise Unfit(ERROR_ARGUMENTS, str(failure)) from None

    def name(self) -> str | None:
        """Return its name if this node has a record of it, whether or not its configuration file is there still."""
        unreadable: dict[str, Failure] = {}
        for name, record in state.noted(unreadable):
            if record.config and is_same(record.config, self.conf):
                return name
        try:
            name = name_in(self.conf)
        except (OSError, Failure):
            return None
        return name if name in unreadable else None

    def start(self) -> None:
        """Boot it, and wait for its services, unless it runs.  Raises Failure."""
        from .boot import ServicesFailed, boot
        if self.is_running():
            return
        config = self.config()
        try:
            boot(config, wait=True)
        except ServicesFailed:
            raise Failure(f"{config.name}: not all of its services have been started") from None

    def stop(self) -> None:
        """Stop it, and clear what is left of one that was killed.  Raises Failure."""
        from .stop import stop
        name = self.name()
        if name is None:
            return
        try:
            stop(name, "")
        except NotRunning:
            pass

    def is_running(self, *, with_services: bool = False) -> bool:
        """Tell whether it is running.

        Raises Failure if it is in a state that only a stop ends: it was killed and has left something, or hibernates.
        With services, also if one of them is not what START wants.
        """
        name = self.name()
        if name is None:
            return False
        try:
            found = running.find(name)
        except NotRunning:
            if files.kind(state.directory_of(name)):
                raise Failure(f"{name} has ended, but has not been cleared up") from None
            return False
        with found.state, found:
            if with_services:
                refuse_failed(found)
        return True

    def reload(self) -> None:
        """Boot it again if its configuration file has changed since its boot.  Raises Failure."""
        config, name = self.config(), self.name()
        if name is None or not self.is_running():
            raise Unfit(STOPPED, f"{config.name} is not running")
        with running.find(name) as found, found.state:      # which may have another NAME than its file has now
            if posix.stat(self.conf).st_mtime <= (found.record.since or 0):
                return
        self.stop()
        self.start()


def is_same(noted: str, conf: str) -> bool:
    """Tell whether two paths are of one configuration file, which may be gone."""
    return noted == conf or subhosts_conf.real(noted) == subhosts_conf.real(conf)


def refuse_failed(found: "running.Running") -> None:
    """Raises Failure if a service of a running subhost has failed or ended, with the names of all of them."""
    from .listing import services_of
    from .services import ill
    if services := ill(services_of(found) or []):
        raise Failure(f"{found.name}: services have failed or ended: {' '.join(services)}")


def monitor(resource: Resource, level: int) -> int:
    return SUCCESS if resource.is_running(with_services=level >= WITH_SERVICES) else STOPPED


def act(action: str, conf: str | None, level: int) -> int:
    """Take an action for the parameter conf, at a level of checks.  Return the exit status; raises Failure, OSError."""
    known: "dict[str, Callable[[Resource], object]]" = {
        "start": Resource.start, "stop": Resource.stop, "reload": Resource.reload, "validate-all": Resource.config,
        "notify": lambda _: None}
    if action == "meta-data":
        files.write_all(1, META_DATA)
        return SUCCESS
    if action != "monitor" and action not in known:
        raise Unfit(ERROR_UNIMPLEMENTED, f"{action}: no such action")
    if posix.geteuid() != 0:
        raise Unfit(ERROR_PERMISSION, "must be run as root")
    resource = Resource(conf)
    if action == "monitor":
        return monitor(resource, level)
    known[action](resource)
    return SUCCESS


META_DATA = f"""\
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="subhost" version="{paths.printable(__version__)}">
<version>1.0</version>
<longdesc lang="en">
A subhost of overlay-boot(8): an environment with services, a root file system and a network of its own, over the root
of the node. What it has on the disk must be on storage that other resources of its group provide.
See ocf_overlay-boot_subhost(7).
</longdesc>
<shortdesc lang="en">Subhost of overlay-boot</shortdesc>
<parameters>
<parameter name="conf" unique="1" required="1">
<longdesc lang="en">
The configuration file of the subhost, an absolute path; see overlay-boot.conf(5).
</longdesc>
<shortdesc lang="en">Configuration file</shortdesc>
<content type="string"/>
</parameter>
</parameters>
<actions>
<action name="start" timeout="180s"/>
<action name="stop" timeout="120s"/>
<action name="monitor" depth="0" timeout="20s" interval="10s"/>
<action name="monitor" depth="10" timeout="60s" interval="60s"/>
<action name="reload" timeout="300s"/>
<action name="notify" timeout="20s"/>
<action name="validate-all" timeout="20s"/>
<action name="meta-data" timeout="10s"/>
</actions>
</resource-agent>
"""
