# The names in the headers of netfilter, which do not go together with those of every libc: for the extensions.

cdef extern from "<arpa/inet.h>" nogil:         # before the others, which heed it
    unsigned short htons(unsigned short number)

cdef extern from "<linux/netfilter.h>" nogil:
    enum: NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6

cdef extern from "<linux/netfilter/nf_tables.h>" nogil:
    enum: NFT_MSG_DELTABLE, NFTA_TABLE_NAME

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    struct nfgenmsg:
        unsigned char nfgen_family
        unsigned char version
        unsigned short res_id
    enum: NFNETLINK_V0, NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END

cdef extern from "<linux/netlink.h>" nogil:
    enum: NETLINK_NETFILTER
