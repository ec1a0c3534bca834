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
    char attributes[256]        # names and addresses are bounded: add_veth() appends 108 bytes at most


cdef struct Answer:
    nlmsghdr header
    nlmsgerr error


def add_veth(str name, int index, str far_name, int far_namespace, *, bytes mac=None, str bridge=None, bint up=False):
    """RTM_NEWLINK, veth(4): a pair, one end of that name and index here, the other in the namespace of a descriptor.

    mac is the address of the far end, 6 bytes; without it the kernel chooses one.
    The near end is a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef ifinfomsg far
    cdef rtattr *info
    cdef rtattr *data
    cdef rtattr *peer
    if mac is not None and len(mac) != ETH_ALEN:
        raise failure("make", name, EINVAL)
    memset(&far, 0, sizeof(far))
    start_link(&request, name, index, bridge, up)
    info = nest(&request, IFLA_LINKINFO)
    add_text(&request, IFLA_INFO_KIND, b"veth")
    data = nest(&request, IFLA_INFO_DATA)
    peer = add(&request, VETH_INFO_PEER, &far, sizeof(far))
    add_name(&request, far_name)
    add(&request, IFLA_NET_NS_FD, &far_namespace, sizeof(far_namespace))
    if mac is not None:
        add(&request, IFLA_ADDRESS, PyBytes_AsString(mac), ETH_ALEN)
    end_nest(&request, peer)
    end_nest(&request, data)
    end_nest(&request, info)
    ask(&request, "make", name)


def add_vlan(str name, int index, str outer, unsigned short tag, *, str bridge=None, bint up=False):
    """RTM_NEWLINK: an 802.1Q VLAN of that name and index on the interface outer, for frames with the tag.

    It is a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef unsigned int carrier = index_of(outer)
    cdef rtattr *info
    cdef rtattr *data
    start_link(&request, name, index, bridge, up)
    add(&request, IFLA_LINK, &carrier, sizeof(carrier))
    info = nest(&request, IFLA_LINKINFO)
    add_text(&request, IFLA_INFO_KIND, b"vlan")
    data = nest(&request, IFLA_INFO_DATA)
    add(&request, IFLA_VLAN_ID, &tag, sizeof(tag))
    end_nest(&request, data)
    end_nest(&request, info)
    ask(&request, "make", name)


def delete_link(int index, str name):
    """RTM_DELLINK: delete the interface of that index if it has that name, else nothing."""
    cdef Request request
    cdef char found[IFNAMSIZ]
    if if_indextoname(index, found) == NULL or found != encoded(name):
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


cdef int start_link(Request *request, str name, int index, str bridge, bint up) except -1:
    """What all messages for a new interface begin with."""
    cdef unsigned int master
    start(request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
    request.link.ifi_index = index
    if up:
        request.link.ifi_flags = request.link.ifi_change = IFF_UP
    add_name(request, name)
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
