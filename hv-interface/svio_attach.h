/* SPDX-License-Identifier: GPL-2.0-or-later OR MIT */
/*
 * The attach protocol: how a virtual machine's process gives a function of its machine to a board that is a
 * process of its own. SPEC.md chapter 15 is the prose.
 *
 * A Unix socket of type SOCK_SEQPACKET. Each request is one packet: a header, its payload, and descriptors as
 * SCM_RIGHTS; each gets one answer with the same request and tag. Everything is little endian.
 */
#ifndef SVIO_ATTACH_H
#define SVIO_ATTACH_H

#include "svio_abi.h"

#define SVIO_ATTACH_VERSION 1

#define SVIO_ATTACH_HELLO 1      /* svio_attach_hello, answered by the same: first of all */
#define SVIO_ATTACH_ATTACH 2     /* svio_attach_vif, answered by svio_attach_place */
#define SVIO_ATTACH_MEMORY 3     /* svio_attach_memory, a descriptor for each region */
#define SVIO_ATTACH_SIGNALS 4    /* svio_attach_count, so many eventfds: vectors 0, 1, ... */
#define SVIO_ATTACH_BELLS 5      /* the same: doorbells of pair 0 send, 0 receive, 1 send ... */
#define SVIO_ATTACH_READ 6       /* svio_attach_register, answered by the same */
#define SVIO_ATTACH_WRITE 7      /* svio_attach_register */
#define SVIO_ATTACH_BAD_ACCESS 8 /* nothing: an access that no register allows */
#define SVIO_ATTACH_DMA 9        /* svio_attach_count: 1: memory and signals may be used, 0: not */
#define SVIO_ATTACH_RESET 10     /* nothing: any reset but that by CONTROL */
#define SVIO_ATTACH_PAGES 11     /* nothing; the answer has two descriptors: see struct svio_attach_polling */
#define SVIO_ATTACH_COUNT 12

#define SVIO_ATTACH_ANSWER (1u << 31) /* of svio_attach_header.request */

#define SVIO_ATTACH_F_PAGES (1ULL << 0) /* feature: PAGES */

#define SVIO_ATTACH_REGIONS_MAX 64

struct svio_attach_header {
    __le32 request; /* SVIO_ATTACH_* */
    __le32 tag;     /* comes back */
    __le32 status;  /* SVIO_ST_*, of an answer; 0 in a request */
    __le32 length;  /* bytes that follow */
};
SVIO_SIZE(svio_attach_header, 16);

struct svio_attach_hello {
    __le32 version;  /* of the peer; the answer: the version that is spoken */
    __le32 vectors;  /* answer: MSI-X vectors of a function; else 0 */
    __le64 features; /* that the peer can do; the answer: those of them in force */
};
SVIO_SIZE(svio_attach_hello, 16);

struct svio_attach_vif {
    __u8 name[32]; /* of the VIF, UTF-8, zero padded; empty: a nameless one */
    __u8 mac[6];   /* all zero: the board chooses */
    __le16 queue_pairs;
    __le32 queue_size; /* entries that the driver is told to use; 0: the board chooses */
    __le32 reserved;
    __u8 machine[64]; /* what people call the machine, UTF-8, zero padded */
};
SVIO_SIZE(svio_attach_vif, 112);

struct svio_attach_place {
    __le32 slot;
    __le32 reserved;
    __le64 id; /* the VIF's unique ID */
};
SVIO_SIZE(svio_attach_place, 16);

struct svio_attach_region {
    __le64 address; /* where the function finds it */
    __le64 size;
    __le64 offset; /* in the file of its descriptor */
};
SVIO_SIZE(svio_attach_region, 24);

struct svio_attach_memory {
    __le32 count;
    __le32 reserved;
    /* struct svio_attach_region[count] */
};
SVIO_SIZE(svio_attach_memory, 8);

struct svio_attach_count {
    __le32 count;
    __le32 reserved;
};
SVIO_SIZE(svio_attach_count, 8);

struct svio_attach_register {
    __le32 offset;
    __le32 value;
};
SVIO_SIZE(svio_attach_register, 8);

/*
 * Files that PAGES brings, of one page each and sealed against shrinking. The first is the same for all
 * peers, which can only read it; the second is this attachment's alone.
 */
struct svio_attach_polling {
    __le32 cores; /* of the board, that look for work all the time at this moment */
};
SVIO_SIZE(svio_attach_polling, 4);

struct svio_attach_raised {
    __le32 vectors; /* bit n: vector n was raised; set by the board, taken by the peer */
    __u8 reserved[60];
    __le32 watchers; /* of the peer; not 0: it looks at `vectors`, and no eventfd need be written */
};
SVIO_SIZE(svio_attach_raised, 68);

#endif /* SVIO_ATTACH_H */
