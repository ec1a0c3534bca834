# The names in the headers of netfilter, which do not go together with those of every libc: for the extensions.

cdef extern from "<arpa/inet.h>" nogil:         # before the others, which heed it
    unsigned short htons(unsigned short number)

cdef extern from "<linux/ip.h>" nogil:
    struct iphdr:
        unsigned int saddr
        unsigned int daddr

cdef extern from "<linux/ipv6.h>" nogil:
    struct in6_addr:
        pass
    struct ipv6hdr:
        in6_addr saddr
        in6_addr daddr

cdef extern from "<linux/udp.h>" nogil:
    struct udphdr:
        unsigned short dest

cdef extern from "<linux/in.h>" nogil:
    enum: IPPROTO_TCP, IPPROTO_UDP

cdef extern from "<linux/netfilter.h>" nogil:
    enum: NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6
    enum: NF_INET_PRE_ROUTING, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING
    enum: NF_ACCEPT, NF_DROP

cdef extern from "<linux/netfilter_ipv4.h>" nogil:
    enum: NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC

cdef extern from "<linux/netfilter/nf_conntrack_common.h>" nogil:
    enum: IP_CT_ESTABLISHED, IP_CT_RELATED, IPS_DST_NAT
    unsigned int NF_CT_STATE_BIT(unsigned int state)

cdef extern from "<linux/netfilter/nf_tables.h>" nogil:
    enum: NFT_NAME_MAXLEN, NFT_REG_VERDICT, NFT_REG_1, NFT_REG_2
    enum: NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_NEWRULE
    enum: NFTA_TABLE_NAME, NFTA_TABLE_HANDLE, NFTA_TABLE_USERDATA, NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER
    enum: NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE
    enum: NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY
    enum: NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA, NFT_MSG_GETRULE
    enum: NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE
    enum: NFTA_META_DREG, NFTA_META_KEY
    enum: NFT_META_NFPROTO, NFT_META_L4PROTO, NFT_META_IIF, NFT_META_OIF, NFT_META_IIFGROUP
    enum: NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN
    enum: NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER
    enum: NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE
    enum: NFTA_CT_DREG, NFTA_CT_KEY, NFT_CT_STATE, NFT_CT_STATUS
    enum: NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR
    enum: NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA, NFT_CMP_EQ, NFT_CMP_NEQ
    enum: NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA
    enum: NFTA_NAT_TYPE, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN, NFT_NAT_DNAT

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    struct nfgenmsg:
        unsigned char nfgen_family
        unsigned char version
        unsigned short res_id
    enum: NFNETLINK_V0, NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END

cdef extern from "<linux/netlink.h>" nogil:
    enum: NETLINK_NETFILTER, NLA_F_NESTED
