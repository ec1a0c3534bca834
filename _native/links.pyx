# cython: language_level=3, binding=False, auto_pickle=False
"""Network interfaces, with addresses and routes, made and deleted by messages of rtnetlink(7); tables of nftables.

Each function raises OSError with errno, the interface as filename, and in
`verb` what could not be done.
"""
from linux cimport *
from netfilter cimport *

from cpython.bytes cimport PyBytes_AsString

include "python.pxi"


LONGEST_NAME = IFNAMSIZ - 1     # of an interface, in characters
GOING = NETNSA_NSID_NOT_ASSIGNED        # in place of the id of a network namespace that is about to go
cdef int DUMPS = 20             # attempts at one, while addresses come and go


cdef union About:               # what a message begins with, after its header
    rtgenmsg any
    ifinfomsg link
    ifaddrmsg address
    rtmsg route
    nfgenmsg table


cdef struct Request:
    nlmsghdr header
    About about
    char attributes[256]        # names and addresses are bounded: add_veth() appends 144 bytes at most


cdef struct Answer:
    nlmsghdr header
    nlmsgerr error


ctypedef int (*Adding)(list found, nlmsghdr *message) except -1


def add_veth(str name, int index, str far_name, int far_namespace, *, bytes mac=None, bytes near_mac=None,
             unsigned int mtu=0, unsigned int group=0, str bridge=None, bint up=False):
    """RTM_NEWLINK, veth(4): a pair, one end of that name and index here, the other in the namespace of a descriptor.

    mac and near_mac are the addresses of the far and the near end, 6 bytes; without one the kernel chooses it.
    mtu is that of both, in bytes; 0 leaves it to the kernel as well.
    The near end is in the group, and a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef ifinfomsg far
    cdef rtattr *info
    cdef rtattr *data
    cdef rtattr *peer
    memset(&far, 0, sizeof(far))
    start_link(&request, name, index, mtu, group, bridge, up)
    add_mac(&request, name, near_mac)
    info = nest(&request, IFLA_LINKINFO)
    add_text(&request, IFLA_INFO_KIND, b"veth")
    data = nest(&request, IFLA_INFO_DATA)
    peer = add(&request, VETH_INFO_PEER, &far, sizeof(far))
    add_name(&request, far_name)
    add(&request, IFLA_NET_NS_FD, &far_namespace, sizeof(far_namespace))
    add_mac(&request, name, mac)
    add_mtu(&request, mtu)
    end_nest(&request, peer)
    end_nest(&request, data)
    end_nest(&request, info)
    ask(&request, "make", name)


def add_vlan(str name, int index, str outer, unsigned short tag, *,
             unsigned int mtu=0, unsigned int group=0, str bridge=None, bint up=False):
    """RTM_NEWLINK: an 802.1Q VLAN of that name and index on the interface outer, for frames with the tag.

    mtu is in bytes, and not more than that of outer, which it is without one.
    It is in the group, a port of the bridge, if one is named, and brought up if up is set.
    """
    cdef Request request
    cdef unsigned int carrier = index_of(outer)
    cdef rtattr *info
    cdef rtattr *data
    start_link(&request, name, index, mtu, group, bridge, up)
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
    start(&request, RTM_NEWLINK, 0, sizeof(ifinfomsg))
    request.about.link.ifi_index = index_of(name)
    add_mac(&request, name, mac)
    ask(&request, "set the address of", name)


def set_group(str name, unsigned int group):
    """RTM_NEWLINK for an interface that is there: have it in a group of interfaces, ip-link(8)."""
    cdef Request request
    start(&request, RTM_NEWLINK, 0, sizeof(ifinfomsg))
    request.about.link.ifi_index = index_of(name)
    add(&request, IFLA_GROUP, &group, sizeof(group))
    ask(&request, "set the group of", name)


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
    start(&request, RTM_DELLINK, 0, sizeof(ifinfomsg))
    request.about.link.ifi_index = index
    try:
        ask(&request, "delete the interface", name)
    except OSError as error:
        if error.errno != ENODEV:       # somebody else was faster
            raise


def far_namespace(str name):
    """RTM_GETLINK: return the index of an interface, and the id of the network namespace that its other end is in.

    That is None if it is this one, or there is no other end, or no interface; GOING if that namespace, and so the
    interface, is about to go.
    """
    cdef Request request
    cdef bytes text = encoded(name)
    cdef int index = if_nametoindex(PyBytes_AsString(text))
    start(&request, RTM_GETLINK, 0, sizeof(ifinfomsg))
    request.about.link.ifi_index = index
    try:
        found = number_in_answer(&request, sizeof(ifinfomsg), IFLA_LINK_NETNSID, "find the interface", name)
    except OSError as error:
        if error.errno not in (ENODEV, EINVAL):     # it has just gone; of the index 0
            raise
        return index, None
    return index, found if found is None or found == GOING or is_in_use(found) else GOING


def namespace_id(int namespace):
    """RTM_GETNSID: return the id that the network namespace of a descriptor has here; GOING if it has none yet."""
    found = id_of_namespace(NETNSA_FD, namespace)
    return GOING if found is None else found


cdef bint is_in_use(int id) except -1:
    """Tell whether a network namespace has anything left that it is there for."""
    try:
        id_of_namespace(NETNSA_NSID, id)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return False
    return True


cdef object id_of_namespace(unsigned short known_by, int value):
    cdef Request request
    start(&request, RTM_GETNSID, 0, sizeof(rtgenmsg))
    add(&request, known_by, &value, sizeof(value))
    return number_in_answer(&request, sizeof(rtgenmsg), NETNSA_NSID, "find the network namespace", None)


cdef object number_in_answer(Request *request, size_t about, unsigned short kind, str verb, str name):
    """Return the number that an attribute has in the answer to a request, None if there is none.  Raises OSError."""
    cdef list found = []
    cdef bytes answer
    cdef rtattr *attribute
    request.header.nlmsg_flags &= ~NLM_F_ACK
    listen_for(found, NETLINK_ROUTE, request, request.header.nlmsg_len, add_message, verb, name)
    answer = found[0]
    attribute = attribute_of(<nlmsghdr *>PyBytes_AsString(answer), about, kind)
    return None if attribute == NULL else (<int *>RTA_DATA(attribute))[0]


cdef int add_message(list found, nlmsghdr *message) except -1:
    found.append((<char *>message)[:message.nlmsg_len])
    return 0


def add_address(str name, bytes address, unsigned int length):
    """RTM_NEWADDR: give an interface that is up an address, 4 or 16 bytes, of a network with a prefix of that length.

    It can be used at once: nobody is asked whether he has it.
    """
    cdef Request request
    start(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(ifaddrmsg))
    request.about.address.ifa_family = family_of(address, name)
    request.about.address.ifa_prefixlen = length
    request.about.address.ifa_flags = IFA_F_NODAD
    request.about.address.ifa_index = index_of(name)
    add(&request, IFA_LOCAL, PyBytes_AsString(address), len(address))
    add(&request, IFA_ADDRESS, PyBytes_AsString(address), len(address))
    ask(&request, "give an address to", name)


def add_route(str name, bytes gateway=None, bytes destination=None):
    """RTM_NEWROUTE: a route by an interface that is up, to an address or else to everywhere, by a gateway on its link.

    There is a gateway or a destination, 4 or 16 bytes.
    """
    cdef Request request
    cdef unsigned int carrier = index_of(name)
    start(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(rtmsg))
    request.about.route.rtm_family = family_of(gateway or destination, name)
    request.about.route.rtm_table = RT_TABLE_MAIN
    request.about.route.rtm_protocol = RTPROT_STATIC
    request.about.route.rtm_scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
    request.about.route.rtm_type = RTN_UNICAST
    add(&request, RTA_OIF, &carrier, sizeof(carrier))
    if destination is not None:
        request.about.route.rtm_dst_len = 8 * len(destination)
        add(&request, RTA_DST, PyBytes_AsString(destination), len(destination))
    if gateway is not None:
        request.about.route.rtm_flags = RTNH_F_ONLINK
        add(&request, RTA_GATEWAY, PyBytes_AsString(gateway), len(gateway))
    ask(&request, "add a route by", name)


def addresses():
    """RTM_GETADDR: return [(index, address, length of the prefix)] of all interfaces here."""
    return dump(RTM_GETADDR)


def routes():
    """RTM_GETROUTE: return [(index, destination, length of the prefix)] of all routes but those to everywhere."""
    return dump(RTM_GETROUTE)


cdef list dump(unsigned short kind):
    """Return what the kernel lists, asked again if that has changed meanwhile."""
    cdef Request request
    cdef list found = []
    start(&request, kind, NLM_F_DUMP, sizeof(rtmsg))
    request.header.nlmsg_flags &= ~NLM_F_ACK
    for _ in range(DUMPS):
        found = []
        if listen_for(found, NETLINK_ROUTE, &request, request.header.nlmsg_len, add_listed, "list the addresses"):
            break
    return found


cdef bint listen_for(list found, int protocol, const void *asked, size_t length, Adding add, str verb,
                     str name=None) except -1:
    """Add what the kernel answers to found.  Return whether it has not changed meanwhile.  Raises OSError."""
    cdef char answers[1 << 15]
    cdef nlmsghdr *message
    cdef ssize_t size
    cdef int number
    cdef bint done = False, whole = True
    cdef int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    try:
        if fd < 0 or sendto(fd, asked, length, 0, NULL, 0) < 0:
            raise failure(verb, name)
        while not done:
            size = read(fd, answers, sizeof(answers))
            if size <= 0:
                raise failure(verb, name, 0 if size else EPROTO)
            message = <nlmsghdr *>answers
            while not done and NLMSG_OK(message, <int>size):
                if message.nlmsg_flags & NLM_F_DUMP_INTR:
                    whole = False
                if message.nlmsg_type in (NLMSG_DONE, NLMSG_ERROR):
                    number = -(<int *>NLMSG_DATA(message))[0]       # of either
                    if number:
                        raise failure(verb, name, number)
                else:
                    add(found, message)
                done = message.nlmsg_type == NLMSG_DONE or not message.nlmsg_flags & NLM_F_MULTI
                size -= NLMSG_ALIGN(message.nlmsg_len)
                message = <nlmsghdr *>(<char *>message + NLMSG_ALIGN(message.nlmsg_len))
    finally:
        close(fd)
    return whole


cdef int add_listed(list found, nlmsghdr *message) except -1:
    """Add (index, address, length) of a message that tells of an address or a route, if it has one."""
    cdef About *about = <About *>NLMSG_DATA(message)
    cdef bint is_route = message.nlmsg_type == RTM_NEWROUTE
    cdef size_t size = sizeof(rtmsg) if is_route else sizeof(ifaddrmsg)
    cdef rtattr *address
    cdef rtattr *carrier
    cdef unsigned int index = 0 if is_route else about.address.ifa_index
    cdef int length = about.route.rtm_dst_len if is_route else about.address.ifa_prefixlen
    if is_route and about.route.rtm_type not in (RTN_UNICAST, RTN_LOCAL):       # what is broadcast, or refused
        return 0
    address = attribute_of(message, size, RTA_DST if is_route else IFA_LOCAL)
    if is_route:
        carrier = attribute_of(message, size, RTA_OIF)
        index = 0 if carrier == NULL else (<unsigned int *>RTA_DATA(carrier))[0]
    elif address == NULL:               # of IPv6 there is no IFA_LOCAL
        address = attribute_of(message, size, IFA_ADDRESS)
    if address != NULL and length:
        found.append((index, (<char *>RTA_DATA(address))[:address.rta_len - sizeof(rtattr)], length))
    return 0


cdef rtattr *attribute_of(nlmsghdr *message, size_t about, unsigned short kind) noexcept:
    """Return the attribute of that kind behind what a message begins with, so many bytes; NULL if there is none."""
    cdef size_t begin = NLMSG_ALIGN(NLMSG_LENGTH(about))
    cdef rtattr *attribute
    while begin + sizeof(rtattr) <= message.nlmsg_len:
        attribute = <rtattr *>(<char *>message + begin)
        if attribute.rta_len < sizeof(rtattr) or begin + attribute.rta_len > message.nlmsg_len:
            break
        if attribute.rta_type == kind:
            return attribute
        begin += RTA_ALIGN(attribute.rta_len)
    return NULL


cdef int family_of(bytes address, str name) except -1:
    if address is None or len(address) not in (4, 16):
        raise failure("use the address of", name, EINVAL)
    return AF_INET if len(address) == 4 else AF_INET6


cdef int index_of(str interface) except -1:
    cdef bytes name = encoded(interface)
    cdef int index = if_nametoindex(PyBytes_AsString(name))
    if index == 0:
        raise failure("find the interface", interface)
    return index


cdef void start(Request *request, unsigned short kind, unsigned short flags, size_t about) noexcept:
    memset(request, 0, sizeof(Request))
    request.header.nlmsg_len = NLMSG_ALIGN(NLMSG_LENGTH(about))
    request.header.nlmsg_type = kind
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags


cdef int start_link(Request *request, str name, int index, unsigned int mtu, unsigned int group, str bridge,
                    bint up) except -1:
    """What all messages for a new interface begin with."""
    cdef unsigned int master
    start(request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(ifinfomsg))
    request.about.link.ifi_index = index
    if up:
        request.about.link.ifi_flags = request.about.link.ifi_change = IFF_UP
    add_name(request, name)
    add_mtu(request, mtu)
    if group:
        add(request, IFLA_GROUP, &group, sizeof(group))
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


cdef int add_mac(Request *request, str interface, bytes mac) except -1:
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
    return converse(NETLINK_ROUTE, request, request.header.nlmsg_len, verb, name)


cdef int converse(int protocol, const void *message, size_t size, str verb, str name) except -1:
    """Send a message of a protocol of netlink(7), and wait for the answer.  Raises OSError of that."""
    cdef int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    try:
        return converse_by(fd, message, size, verb, name)
    finally:
        close(fd)


cdef int converse_by(int fd, const void *message, size_t size, str verb, str name) except -1:
    """The same by a socket, which may not have been made."""
    cdef Answer answer
    memset(&answer, 0, sizeof(answer))
    if fd < 0 or sendto(fd, message, size, 0, NULL, 0) < 0 or read(fd, &answer, sizeof(answer)) < 0:
        raise failure(verb, name)
    if answer.header.nlmsg_type != NLMSG_ERROR:         # which tells of a success as well
        raise failure(verb, name, EPROTO)
    if answer.error.error:
        raise failure(verb, name, -answer.error.error)
    return 0


include "tables.pxi"
