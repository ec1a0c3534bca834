# Tables of nftables, by messages to nf_tables: for links.pyx.  What is in them is named as in nft(8).

cdef dict FAMILIES = {"inet": NFPROTO_INET, "ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6}
cdef dict HOOKS = {"prerouting": NF_INET_PRE_ROUTING, "forward": NF_INET_FORWARD, "output": NF_INET_LOCAL_OUT,
                   "postrouting": NF_INET_POST_ROUTING}
cdef dict PRIORITIES = {"raw": NF_IP_PRI_RAW, "dstnat": NF_IP_PRI_NAT_DST, "filter": NF_IP_PRI_FILTER,
                        "srcnat": NF_IP_PRI_NAT_SRC}
cdef dict METAS = {"nfproto": (NFT_META_NFPROTO, 1), "l4proto": (NFT_META_L4PROTO, 1), "iif": (NFT_META_IIF, 4),
                   "oif": (NFT_META_OIF, 4), "iifgroup": (NFT_META_IIFGROUP, 4)}     # and their sizes, in bytes
cdef dict VERDICTS = {"accept": NF_ACCEPT, "drop": NF_DROP}
cdef str OURS = "overlay-boot"          # the comment of each table, by which it is known to be ours


# Expressions: those of a rule, one after the other, are what it consists of

def meta(str key, unsigned int value, *, bint differs=False):
    """What is known of a packet is that value, or differs from it."""
    number, size = METAS[key]
    return (expression(b"meta", number_of(NFTA_META_KEY, number) + number_of(NFTA_META_DREG, NFT_REG_1))
            + compared(bytes([value]) if size == 1 else (<char *>&value)[:size], differs))


def comes_from(str family, bytes beginning):
    """The source of the packet is an address that begins so."""
    cdef iphdr four
    cdef ipv6hdr six
    return has_address(family, beginning, <char *>&four.saddr - <char *>&four, <char *>&six.saddr - <char *>&six, False)


def is_for(str family, bytes beginning, *, bint differs=False):
    """The destination of the packet is an address that begins so, or in another way."""
    cdef iphdr four
    cdef ipv6hdr six
    return has_address(family, beginning, <char *>&four.daddr - <char *>&four, <char *>&six.daddr - <char *>&six,
                       differs)


def is_for_port(str protocol, int port):
    cdef udphdr header                  # as in that of TCP
    return (meta("l4proto", IPPROTO_TCP if protocol == "tcp" else IPPROTO_UDP)
            + payload(NFT_PAYLOAD_TRANSPORT_HEADER, <char *>&header.dest - <char *>&header, port.to_bytes(2, "big"),
                      False))


cdef bytes has_address(str family, bytes beginning, int offset, int offset6, bint differs):
    return is_of(family) + payload(NFT_PAYLOAD_NETWORK_HEADER, offset if family == "ip" else offset6, beginning, differs)


cdef bytes payload(int header, int offset, bytes value, bint differs):
    """At that offset of a header of the packet is that value, or another one."""
    return (expression(b"payload", number_of(NFTA_PAYLOAD_DREG, NFT_REG_1) + number_of(NFTA_PAYLOAD_BASE, header)
                       + number_of(NFTA_PAYLOAD_OFFSET, offset) + number_of(NFTA_PAYLOAD_LEN, len(value)))
            + compared(value, differs))


def is_of(str family):
    """The packet is of IPv4 or IPv6."""
    return meta("nfproto", FAMILIES[family])


def is_for_host():
    """The destination of the packet is an address of the host."""
    cdef unsigned int kind = RTN_LOCAL
    return (expression(b"fib", number_of(NFTA_FIB_DREG, NFT_REG_1)
                       + number_of(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
                       + number_of(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR))
            + compared((<char *>&kind)[:sizeof(kind)], False))


def is_answered():
    """The packet belongs to a connection that has been seen in both directions, or is related to one."""
    return of_connection(NFT_CT_STATE, NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED))


def is_led():
    """The packet belongs to a connection that leads elsewhere, as by leads_to()."""
    return of_connection(NFT_CT_STATUS, IPS_DST_NAT)


def leads_to(str family, bytes address, int port):
    """The connection leads to that address and port."""
    return (expression(b"immediate", number_of(NFTA_IMMEDIATE_DREG, NFT_REG_1) + data(NFTA_IMMEDIATE_DATA, address))
            + expression(b"immediate", number_of(NFTA_IMMEDIATE_DREG, NFT_REG_2)
                         + data(NFTA_IMMEDIATE_DATA, port.to_bytes(2, "big")))
            + expression(b"nat", number_of(NFTA_NAT_TYPE, NFT_NAT_DNAT) + number_of(NFTA_NAT_FAMILY, FAMILIES[family])
                         + number_of(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1)
                         + number_of(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2)))


def masquerade():
    """The connection gets the address of the interface by which it leaves."""
    return expression(b"masq", b"")


def verdict(str name):
    return expression(b"immediate", number_of(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT) + nested(
        NFTA_IMMEDIATE_DATA, nested(NFTA_DATA_VERDICT, number_of(NFTA_VERDICT_CODE, VERDICTS[name]))))


cdef bytes of_connection(int key, unsigned int bits):
    """The connection of the packet has one of the bits."""
    cdef unsigned int none = 0
    cdef bytes mask = (<char *>&bits)[:sizeof(bits)], zero = (<char *>&none)[:sizeof(none)]
    return (expression(b"ct", number_of(NFTA_CT_KEY, key) + number_of(NFTA_CT_DREG, NFT_REG_1))
            + expression(b"bitwise", number_of(NFTA_BITWISE_SREG, NFT_REG_1) + number_of(NFTA_BITWISE_DREG, NFT_REG_1)
                         + number_of(NFTA_BITWISE_LEN, sizeof(bits)) + data(NFTA_BITWISE_MASK, mask)
                         + data(NFTA_BITWISE_XOR, zero))
            + compared(zero, True))


cdef bytes compared(bytes value, bint differs):
    return expression(b"cmp", number_of(NFTA_CMP_SREG, NFT_REG_1)
                      + number_of(NFTA_CMP_OP, NFT_CMP_NEQ if differs else NFT_CMP_EQ) + data(NFTA_CMP_DATA, value))


cdef bytes expression(bytes name, bytes attributes):
    return nested(NFTA_LIST_ELEM, attribute(NFTA_EXPR_NAME, name + b"\0") + nested(NFTA_EXPR_DATA, attributes))


cdef bytes data(unsigned short kind, bytes value):
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


# Attributes

cdef bytes attribute(unsigned short kind, bytes value):
    cdef rtattr header
    header.rta_type = kind
    header.rta_len = RTA_LENGTH(len(value))
    return (<char *>&header)[:sizeof(header)] + value + bytes(RTA_ALIGN(header.rta_len) - header.rta_len)


cdef bytes nested(unsigned short kind, bytes attributes):
    return attribute(kind | NLA_F_NESTED, attributes)


cdef bytes number_of(unsigned short kind, long number):
    return attribute(kind, (number & 0xffffffff).to_bytes(4, "big"))


# Messages

cdef bytes message(unsigned short kind, unsigned short flags, int family, bytes attributes):
    """Return a message of a batch."""
    cdef Request request
    start(&request, NFNL_SUBSYS_NFTABLES << 8 | kind, 0, sizeof(nfgenmsg))
    request.header.nlmsg_flags = NLM_F_REQUEST | flags
    request.header.nlmsg_len += len(attributes)
    request.about.table.nfgen_family = family
    request.about.table.version = NFNETLINK_V0
    return (<char *>&request)[:NLMSG_LENGTH(sizeof(nfgenmsg))] + attributes


cdef bytes border(unsigned short kind):
    """Return the beginning of a batch, or its end."""
    cdef Request request
    start(&request, kind, 0, sizeof(nfgenmsg))
    request.header.nlmsg_flags = NLM_F_REQUEST
    request.about.table.version = NFNETLINK_V0
    request.about.table.res_id = htons(NFNL_SUBSYS_NFTABLES)
    return (<char *>&request)[:request.header.nlmsg_len]


cdef bytes batch(list messages):
    """Return one message of them: all of it is done, or nothing.

    The last one is acknowledged, and an error of another one comes before that.
    """
    return b"".join([border(NFNL_MSG_BATCH_BEGIN), *messages[:-1], acknowledged(messages[-1]),
                     border(NFNL_MSG_BATCH_END)])


cdef bytes acknowledged(bytes wanted):
    cdef nlmsghdr header
    memcpy(&header, PyBytes_AsString(wanted), sizeof(header))
    header.nlmsg_flags |= NLM_F_ACK
    return (<char *>&header)[:sizeof(header)] + wanted[sizeof(header):]


def make_tables(list tables, *, bint owned):
    """In one transaction, make tables of ours: (family, name, [(chain, type, hook, priority, [(rule, comment)])]).

    One of ours that is there is replaced.  One of somebody else is the error EEXIST, with its name.
    If owned is set, the first one is there as long as the socket that is returned is open, and nobody can change it by
    another one: an `nft flush ruleset` leaves it as it is.
    """
    cdef list messages = []
    cdef bytes wanted
    cdef int fd, size
    for place, (family, table, chains) in enumerate(tables):
        number, named = FAMILIES[family], text_of(NFTA_TABLE_NAME, table)
        there = find_table(family, table)
        if there is not None:
            if not there[1]:
                raise failure("make the table", f"{family} {table}", EEXIST)
            messages.append(deletion(family, there[0]))
        messages.append(message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, number,
                                named + attribute(NFTA_TABLE_USERDATA, commented(OURS))
                                + number_of(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER if owned and place == 0 else 0)))
        for chain, kind, hook, priority, rules in chains:
            messages.append(message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, number, (
                text_of(NFTA_CHAIN_TABLE, table) + text_of(NFTA_CHAIN_NAME, chain) + text_of(NFTA_CHAIN_TYPE, kind)
                + nested(NFTA_CHAIN_HOOK, number_of(NFTA_HOOK_HOOKNUM, HOOKS[hook])
                         + number_of(NFTA_HOOK_PRIORITY, PRIORITIES[priority])))))
            messages += [message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, number, (
                text_of(NFTA_RULE_TABLE, table) + text_of(NFTA_RULE_CHAIN, chain)
                + nested(NFTA_RULE_EXPRESSIONS, rule)
                + (attribute(NFTA_RULE_USERDATA, commented(comment)) if comment else b""))) for rule, comment in rules]
    wanted = batch(messages)
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER)
    size = len(wanted)                          # of many ports it is too large otherwise; the kernel doubles this
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size))     # if that fails, sendto(2) tells
    try:
        converse_by(fd, PyBytes_AsString(wanted), len(wanted), "make the table", " ".join(tables[0][:2]))
    except BaseException:
        close(fd)
        raise
    return fd


def delete_table(str family, str table):
    """Delete a table of ours, with all that is in it; nothing if there is none of that name, or it is somebody else's."""
    cdef bytes wanted
    there = find_table(family, table)
    if there is not None and there[1]:
        wanted = batch([deletion(family, there[0])])
        try:
            converse(NETLINK_NETFILTER, PyBytes_AsString(wanted), len(wanted), "delete the table", table)
        except OSError as error:
            if error.errno != ENOENT:   # somebody else was faster
                raise


cdef bytes deletion(str family, unsigned long handle):
    """Return the message that deletes a table: by its handle, so no other one of its name."""
    return message(NFT_MSG_DELTABLE, 0, FAMILIES[family], attribute(NFTA_TABLE_HANDLE, handle.to_bytes(8, "big")))


cdef bytes commented(str comment):
    """Return a comment as nft(8) has it: a byte for its kind, and one for its size."""
    cdef bytes text = encoded(comment) + b"\0"
    return bytes([0, len(text)]) + text


cdef bytes text_of(unsigned short kind, str name):
    cdef bytes text = encoded(name)
    if len(text) >= NFT_NAME_MAXLEN:
        raise failure("use the name", name, ENAMETOOLONG)
    return attribute(kind, text + b"\0")


def find_table(str family, str table):
    """Return (its handle, whether it is ours) of a table, None if there is none."""
    cdef list found = []
    cdef bytes asked = message(NFT_MSG_GETTABLE, 0, FAMILIES[family], text_of(NFTA_TABLE_NAME, table))
    try:
        listen_for(found, NETLINK_NETFILTER, PyBytes_AsString(asked), len(asked), add_table, "find the table", table)
    except OSError as error:
        if error.errno not in (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT):    # the latter two where there can be none
            raise
    return found[0] if found else None


def comments(str family, str table, str chain):
    """Return the comments of the rules in a chain, [] if there is none of that name."""
    cdef list found = []
    cdef bytes asked = message(NFT_MSG_GETRULE, NLM_F_DUMP, FAMILIES[family],
                               text_of(NFTA_RULE_TABLE, table) + text_of(NFTA_RULE_CHAIN, chain))
    listen_until_whole(found, asked, add_comment, "list the rules of", table)
    return found


def forward_chains():
    """Return [(family, table, chain, whether its policy is drop)] of what is asked about packets that are forwarded."""
    cdef list found = []
    listen_until_whole(found, message(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, b""), add_chain, "list the chains", None)
    return found


cdef int listen_until_whole(list found, bytes asked, Adding add, str verb, str name) except -1:
    """Add what the kernel lists to found, asked again if that has changed meanwhile; nothing where there can be none."""
    for _ in range(DUMPS):
        found.clear()
        try:
            if listen_for(found, NETLINK_NETFILTER, PyBytes_AsString(asked), len(asked), add, verb, name):
                break
        except OSError as error:
            if error.errno not in (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT):
                raise
            break
    return 0


cdef int add_table(list found, nlmsghdr *told) except -1:
    cdef dict its = attributes_of(told, sizeof(nfgenmsg))
    found.append((int.from_bytes(its[NFTA_TABLE_HANDLE], "big"), its.get(NFTA_TABLE_USERDATA) == commented(OURS)))
    return 0


cdef int add_comment(list found, nlmsghdr *told) except -1:
    cdef dict its = attributes_of(told, sizeof(nfgenmsg))
    if NFTA_RULE_USERDATA in its:
        found.append(text_in(its[NFTA_RULE_USERDATA][2:]))
    return 0


cdef int add_chain(list found, nlmsghdr *told) except -1:
    cdef dict its = attributes_of(told, sizeof(nfgenmsg))
    cdef int number = (<About *>NLMSG_DATA(told)).table.nfgen_family
    if NFTA_CHAIN_HOOK not in its:
        return 0
    hook = int.from_bytes(split(its[NFTA_CHAIN_HOOK])[NFTA_HOOK_HOOKNUM], "big")
    for family, its_number in FAMILIES.items():         # the others number their hooks in another way
        if number == its_number and hook == NF_INET_FORWARD:
            found.append((family, text_in(its[NFTA_CHAIN_TABLE]), text_in(its[NFTA_CHAIN_NAME]),
                          int.from_bytes(its[NFTA_CHAIN_POLICY], "big") == NF_DROP))
    return 0


cdef str text_in(bytes value):
    return value.rstrip(b"\0").decode("utf-8", "replace")


cdef dict attributes_of(nlmsghdr *told, size_t about):
    """Return {kind: value} of what follows the header and what a message is about."""
    return split((<char *>told)[NLMSG_LENGTH(about):told.nlmsg_len])


cdef dict split(bytes attributes):
    cdef dict found = {}
    cdef rtattr header
    cdef size_t begin = 0
    while begin + sizeof(header) <= <size_t>len(attributes):
        memcpy(&header, PyBytes_AsString(attributes) + begin, sizeof(header))
        if header.rta_len < sizeof(header):
            break
        found[header.rta_type & ~NLA_F_NESTED] = attributes[begin + sizeof(header):begin + header.rta_len]
        begin += RTA_ALIGN(header.rta_len)
    return found
