# cython: language_level=3, binding=False, auto_pickle=False
"""Network interfaces, made and deleted by messages of rtnetlink(7).

Each function raises OSError with errno, the interface as filename, and in
`verb` what could not be done.
"""
from linux cimport *

from cpython.bytes cimport PyBytes_AsString

include "python.pxi"


LONGEST_NAME = IFNAMSIZ - 1     # of an interface, in characters


cdef struct Request:
    nlmsghdr header
    ifinfomsg link
    char attributes[256]        # names and addresses are bounded: add_veth() appends 136 bytes at most


cdef struct Answer:
    nlmsghdr header
    nlmsgerr error


def add_veth(str name, int index, str far_name, int far_namespace, *, bytes mac=None, bytes near_mac=None,
             unsigned int mtu=0, str bridge=None, bint up=False):
    """RTM_NEWLINK, veth(4): a pair, one end of that name and index here, the other in the namespace of a descriptor.

    mac and near_mac are the addresses of the far and the near end, 6 bytes; without one the kernel chooses it.
    mtu is that of both, in bytes; 0 leaves it to the kernel as well.
    The near end is a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef ifinfomsg far
    cdef rtattr *info
    cdef rtattr *data
    cdef rtattr *peer
    memset(&far, 0, sizeof(far))
    start_link(&request, name, index, mtu, bridge, up)
    add_address(&request, name, near_mac)
    info = nest(&request, IFLA_LINKINFO)
    add_text(&request, IFLA_INFO_KIND, b"veth")
    data = nest(&request, IFLA_INFO_DATA)
    peer = add(&request, VETH_INFO_PEER, &far, sizeof(far))
    add_name(&request, far_name)
    add(&request, IFLA_NET_NS_FD, &far_namespace, sizeof(far_namespace))
    add_address(&request, name, mac)
    add_mtu(&request, mtu)
    end_nest(&request, peer)
    end_nest(&request, data)
    end_nest(&request, info)
    ask(&request, "make", name)


def add_vlan(str name, int index, str outer, unsigned short tag, *,
             unsigned int mtu=0, str bridge=None, bint up=False):
    """RTM_NEWLINK: an 802.1Q VLAN of that name and index on the interface outer, for frames with the tag.

    mtu is in bytes, and not more than that of outer, which it is without one.
    It is a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef unsigned int carrier = index_of(outer)
    cdef rtattr *info
    cdef rtattr *data
    start_link(&request, name, index, mtu, bridge, up)
    add(&request, IFLA_LINK, &carrier, sizeof(carrier))
    info = nest(&request, IFLA_LINKINFO)
    add_text(&request, IFLA_INFO_KIND, b"vlan")
    data = nest(&request, IFLA_INFO_DATA)
    add(&request, IFLA_VLAN_ID, &tag, sizeof(tag))
    end_nest(&request, data)
    end_nest(&request, info)
    ask(&request, "make", name)


def set_address(str name, bytes mac):
    """RTM_NEWLINK for an interface that is there: give it an address, 6 bytes."""
    cdef Request request
    start(&request, RTM_NEWLINK, 0)
    request.link.ifi_index = index_of(name)
    add_address(&request, name, mac)
    ask(&request, "set the address of", name)


def delete_link(int index, str name):
    """RTM_DELLINK: delete the interface of that index if it has that name, else nothing."""
    cdef Request request
    cdef char found[IFNAMSIZ]
    if if_indextoname(index, found) == NULL:
        if errno == ENXIO:              # there is none of that index
            return
        raise failure("find the interface", name)
    if found != encoded(name):
        return
    start(&request, RTM_DELLINK, 0)
    request.link.ifi_index = index
    try:
        ask(&request, "delete the interface", name)
    except OSError as error:
        if error.errno != ENODEV:       # somebody else was faster
            raise


cdef int index_of(str interface) except -1:
    cdef bytes name = encoded(interface)
    cdef int index = if_nametoindex(PyBytes_AsString(name))
    if index == 0:
        raise failure("find the interface", interface)
    return index


cdef void start(Request *request, unsigned short kind, unsigned short flags) noexcept:
    memset(request, 0, sizeof(Request))
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(ifinfomsg))
    request.header.nlmsg_type = kind
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags


cdef int start_link(Request *request, str name, int index, unsigned int mtu, str bridge, bint up) except -1:
    """What all messages for a new interface begin with."""
    cdef unsigned int master
    start(request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
    request.link.ifi_index = index
    if up:
        request.link.ifi_flags = request.link.ifi_change = IFF_UP
    add_name(request, name)
    add_mtu(request, mtu)
    if bridge is not None:
        master = index_of(bridge)
        add(request, IFLA_MASTER, &master, sizeof(master))
    return 0


cdef rtattr *add(Request *request, unsigned short kind, const void *data, size_t size) noexcept:
    """Append an attribute."""
    cdef rtattr *attribute = <rtattr *>(<char *>request + request.header.nlmsg_len)
    attribute.rta_type = kind
    attribute.rta_len = RTA_LENGTH(size)
    memcpy(RTA_DATA(attribute), data, size)
    request.header.nlmsg_len += RTA_ALIGN(attribute.rta_len)
    return attribute


cdef int add_text(Request *request, unsigned short kind, bytes text) except -1:
    add(request, kind, PyBytes_AsString(text), len(text) + 1)
    return 0


cdef int add_name(Request *request, str interface) except -1:
    cdef bytes name = encoded(interface)
    if len(name) >= IFNAMSIZ:
        raise failure("use the name", interface, ENAMETOOLONG)
    add_text(request, IFLA_IFNAME, name)
    return 0


cdef int add_address(Request *request, str interface, bytes mac) except -1:
    if mac is not None:
        if len(mac) != ETH_ALEN:
            raise failure("use the address of", interface, EINVAL)
        add(request, IFLA_ADDRESS, PyBytes_AsString(mac), ETH_ALEN)
    return 0


cdef void add_mtu(Request *request, unsigned int mtu) noexcept:
    if mtu:
        add(request, IFLA_MTU, &mtu, sizeof(mtu))


cdef rtattr *nest(Request *request, unsigned short kind) noexcept:
    """Append an attribute for those that are appended until its end_nest()."""
    return add(request, kind, &kind, 0)


cdef void end_nest(Request *request, rtattr *outer) noexcept:
    outer.rta_len = <char *>request + request.header.nlmsg_len - <char *>outer


cdef int ask(Request *request, str verb, str name) except -1:
    """Have the kernel do it.  Raises OSError if it does not."""
    cdef Answer answer
    cdef int number = 0
    cdef int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    memset(&answer, 0, sizeof(answer))
    if fd < 0 or sendto(fd, request, request.header.nlmsg_len, 0, NULL, 0) < 0 or read(fd, &answer, sizeof(answer)) < 0:
        number = errno
    elif answer.header.nlmsg_type != NLMSG_ERROR:       # which tells of a success as well
        number = EPROTO
    else:
        number = -answer.error.error
    close(fd)
    if number:
        raise failure(verb, name, number)
    return 0
