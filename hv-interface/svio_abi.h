/* SPDX-License-Identifier: GPL-2.0-or-later OR MIT */
/*
 * svio: the contract between the device, its driver, management and tests.
 *
 * SPEC.md is the prose; this header is the letter. Everything is little
 * endian. Positions (of queues) are free-running 32-bit counters: the slot of
 * a position is `position & (size - 1)`, its lap bit is svio_lap().
 *
 * Usable from C (kernel, QEMU adapter) and C++ (board, tools, tests).
 */
#ifndef SVIO_ABI_H
#define SVIO_ABI_H

#include <linux/types.h>

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#else
#include <stddef.h>
#endif

#ifdef __cplusplus
#define SVIO_ASSERT(cond) static_assert(cond, #cond)
#else
#define SVIO_ASSERT(cond) _Static_assert(cond, #cond)
#endif

/* ---- PCI identity (SPEC 2) ---- */
#define SVIO_PCI_VENDOR 0x1234
#define SVIO_PCI_DEVICE_PF 0x5110
#define SVIO_PCI_DEVICE_VF 0x5111
#define SVIO_PCI_REVISION 1
#define SVIO_PCI_VF_OFFSET 0x80 /* routing ID of the first VF, from that of the PF */
#define SVIO_PCI_VF_STRIDE 2

#define SVIO_BAR_REGS 0
#define SVIO_BAR_REGS_SIZE 0x10000
#define SVIO_BAR_MSIX 2
#define SVIO_BAR_MSIX_SIZE 0x2000
#define SVIO_MSIX_TABLE_OFFSET 0x0000
#define SVIO_MSIX_PBA_OFFSET 0x1000
#define SVIO_VECTORS 9 /* one for events, one for each queue pair */

/* ---- limits ---- */
#define SVIO_ABI_MAJOR 1
#define SVIO_ABI_MINOR 0
#define SVIO_MAX_QUEUE_PAIRS 8
#define SVIO_MAX_VIFS 64
#define SVIO_MAX_CORES 16
#define SVIO_QUEUE_MIN 16
#define SVIO_QUEUE_MAX 4096
#define SVIO_CHAIN_MAX 32 /* entries in one message */
#define SVIO_MESSAGE_MAX 69632 /* bytes in one message: 64 KiB and its headers */
#define SVIO_FRAME_MIN 14
#define SVIO_MTU_MIN 68
#define SVIO_MTU_MAX 9000
#define SVIO_MULTICAST_MAX 64
#define SVIO_ADMIN_QUEUE_MIN 16
#define SVIO_ADMIN_QUEUE_MAX 1024
#define SVIO_QUEUE_ALIGN 64
#define SVIO_NO_VECTOR 0xffff
#define SVIO_PORT_STALL_MS 2000 /* by default frames wait so long for a port that takes none */
#define SVIO_RSS_KEY_LEN 40
#define SVIO_RSS_TABLE_MAX 128
#define SVIO_SEGMENTS_MAX 512 /* frames that one message with SVIO_ENTRY_SEG stands for */
#define SVIO_WEIGHT_MAX 1000

/* ---- function registers, BAR 0 (SPEC 4). All are 32 bits wide. ---- */
#define SVIO_REG_MAGIC 0x0000 /* RO  "SVIO" */
#define SVIO_REG_ABI_VERSION 0x0004 /* RO  major << 16 | minor */
#define SVIO_REG_FUNCTION 0x0008 /* RO  SVIO_FUNCTION_* and the slot */
#define SVIO_REG_STATUS 0x000c /* RO  SVIO_STATUS_* */
#define SVIO_REG_CONTROL 0x0010 /* RW  SVIO_CONTROL_* */
#define SVIO_REG_EVENT 0x0014 /* RW1C SVIO_EVENT_* */
#define SVIO_REG_EVENT_VECTOR 0x0018 /* RW  MSI-X vector of events */
#define SVIO_REG_DEVICE_FEATURES_LO 0x0020 /* RO */
#define SVIO_REG_DEVICE_FEATURES_HI 0x0024 /* RO */
#define SVIO_REG_DRIVER_FEATURES_LO 0x0028 /* RW  before FEATURES_OK */
#define SVIO_REG_DRIVER_FEATURES_HI 0x002c /* RW  before FEATURES_OK */
#define SVIO_REG_QUEUE_PAIRS 0x0030 /* RO  pairs of this VIF */
#define SVIO_REG_QUEUE_SIZE_MAX 0x0034 /* RO  entries */
#define SVIO_REG_QUEUE_SIZE_HINT 0x0038 /* RO  entries: what `queue-size=` asks for */
#define SVIO_REG_MTU_MAX 0x003c /* RO  bytes */
#define SVIO_REG_VIF_ID_LO 0x0040 /* RO  unique ID of the VIF, never reused */
#define SVIO_REG_VIF_ID_HI 0x0044 /* RO */
#define SVIO_REG_VIF_KIND 0x0048 /* RO  SVIO_KIND_* */
#define SVIO_REG_MAC_LO 0x004c /* RO  permanent MAC, bytes 0..3 */
#define SVIO_REG_MAC_HI 0x0050 /* RO  permanent MAC, bytes 4..5 */
#define SVIO_REG_LINK_SPEED 0x0054 /* RO  Mb/s, 0 = unknown */
#define SVIO_REG_SIGNALS 0x0058 /* RW1C  the PF's, where signals are shared: bit slot % 8 */
#define SVIO_REG_MAILBOX 0x0080 /* RW  64 bytes: struct svio_command */
#define SVIO_REG_MAILBOX_BELL 0x00c0 /* WO  any value runs the command */
#define SVIO_REG_MAILBOX_STATE 0x00c4 /* RO  SVIO_MAILBOX_* */

/* ---- admin queue, PF only (SPEC 8) ---- */
#define SVIO_REG_ADMIN_SIZE_MAX 0x2000 /* RO  entries, 0 = no admin queue */
#define SVIO_REG_ADMIN_BASE_LO 0x2004 /* RW */
#define SVIO_REG_ADMIN_BASE_HI 0x2008 /* RW */
#define SVIO_REG_ADMIN_SIZE 0x200c /* RW */
#define SVIO_REG_ADMIN_VECTOR 0x2010 /* RW */
#define SVIO_REG_ADMIN_CONTROL 0x2014 /* RW  bit 0: enable */
#define SVIO_REG_ADMIN_STATE 0x2018 /* RO  as SVIO_QUEUE_STATE */
#define SVIO_REG_ADMIN_BELL 0x201c /* WO */

/* ---- queue registers: SVIO_QUEUE_REG(pair, direction, SVIO_QUEUE_*) ---- */
#define SVIO_REG_QUEUES 0x4000
#define SVIO_QUEUE_PAIR_STRIDE 0x100
#define SVIO_QUEUE_DIR_STRIDE 0x80
#define SVIO_SEND 0
#define SVIO_RECEIVE 1
#define SVIO_QUEUE_REG(pair, dir, reg) \
	(SVIO_REG_QUEUES + (pair) * SVIO_QUEUE_PAIR_STRIDE + (dir) * SVIO_QUEUE_DIR_STRIDE + (reg))

#define SVIO_QUEUE_BASE_LO 0x00 /* RW  guest address of the entries */
#define SVIO_QUEUE_BASE_HI 0x04 /* RW */
#define SVIO_QUEUE_EVENT_LO 0x08 /* RW  guest address of struct svio_queue_event */
#define SVIO_QUEUE_EVENT_HI 0x0c /* RW */
#define SVIO_QUEUE_SIZE 0x10 /* RW  entries, a power of two */
#define SVIO_QUEUE_VECTOR 0x14 /* RW  MSI-X vector or SVIO_NO_VECTOR */
#define SVIO_QUEUE_CONTROL 0x18 /* RW  bit 0: enable */
#define SVIO_QUEUE_STATE 0x1c /* RO  state | error << 8 */
#define SVIO_QUEUE_POSITION 0x20 /* RO  next position of the device */
#define SVIO_QUEUE_MODERATION 0x24 /* RW  frames << 16 | microseconds */

#define SVIO_QUEUE_ENABLE 0x1

/* ---- doorbells: one page for each pair ---- */
#define SVIO_REG_BELLS 0x8000
#define SVIO_BELL_PAIR_STRIDE 0x1000
#define SVIO_BELL_DIR_STRIDE 0x800
#define SVIO_BELL(pair, dir) \
	(SVIO_REG_BELLS + (pair) * SVIO_BELL_PAIR_STRIDE + (dir) * SVIO_BELL_DIR_STRIDE)

#define SVIO_MAGIC 0x4f495653 /* "SVIO" */

#define SVIO_FUNCTION_PF 0x80000000
#define SVIO_FUNCTION_SLOT 0x0000ffff

#define SVIO_STATUS_READY 0x01 /* no reset under way */
#define SVIO_STATUS_FEATURES_OK 0x02
#define SVIO_STATUS_RUNNING 0x04
#define SVIO_STATUS_LINK_UP 0x08
#define SVIO_STATUS_FAILED 0x10 /* only a reset helps */

#define SVIO_CONTROL_RESET 0x01 /* self-clearing */
#define SVIO_CONTROL_FEATURES_OK 0x02
#define SVIO_CONTROL_RUN 0x04

#define SVIO_EVENT_LINK 0x01 /* link state changed */
#define SVIO_EVENT_QUEUE_ERROR 0x02 /* a queue went into the error state */
#define SVIO_EVENT_CONFIG 0x04 /* management changed the VIF: identify again */
#define SVIO_EVENT_QOS 0x08 /* answer to a QoS request */
#define SVIO_EVENT_ALL 0x0f

#define SVIO_KIND_NONE 0 /* an empty slot */
#define SVIO_KIND_NET 1

#define SVIO_MAILBOX_IDLE 0
#define SVIO_MAILBOX_BUSY 1
#define SVIO_MAILBOX_DONE 2

/* ---- features ---- */
#define SVIO_F_CSUM_TX (1ULL << 0) /* send: SVIO_ENTRY_CSUM */
#define SVIO_F_CSUM_RX (1ULL << 1) /* receive: SVIO_ENTRY_CSUM / _CSUM_OK */
#define SVIO_F_SEG_TCP4 (1ULL << 2)
#define SVIO_F_SEG_TCP6 (1ULL << 3)
#define SVIO_F_SEG_UDP (1ULL << 4)
#define SVIO_F_RX_SEG (1ULL << 5) /* receive: segments may come unsplit */
#define SVIO_F_RX_CHAIN (1ULL << 6) /* receive: a message may span entries */
#define SVIO_F_VLAN_TX (1ULL << 7)
#define SVIO_F_VLAN_RX (1ULL << 8)
#define SVIO_F_RX_HASH (1ULL << 9)
#define SVIO_F_MODERATION (1ULL << 10)
#define SVIO_F_MULTICAST (1ULL << 11) /* multicast filter commands */
#define SVIO_F_QOS_REQUEST (1ULL << 12)
#define SVIO_F_TIMESTAMP (1ULL << 13)
#define SVIO_F_LOOPBACK (1ULL << 14) /* send: SVIO_ENTRY_LOOP */
#define SVIO_F_SHARED_SIGNALS (1ULL << 32)
/* of SVIO_OP_RX_OFFLOADS */
#define SVIO_F_RX_OFFLOADS (SVIO_F_CSUM_RX | SVIO_F_RX_SEG | SVIO_F_VLAN_RX)

/* ---- queue entries (SPEC 5) ---- */
struct svio_entry {
	__le64 addr; /* guest address of the buffer */
	__le32 len; /* bytes; receive: written back as the bytes used */
	__le16 csum_start; /* from the start of the message */
	__le16 csum_offset; /* from csum_start */
	__le16 seg_size; /* payload bytes of each segment */
	__le16 seg_header; /* bytes of headers before the payload */
	__le16 vlan_tci;
	__u8 seg_type; /* SVIO_SEG_* */
	__u8 hash_type; /* SVIO_HASH_*, receive only */
	__le32 hash; /* receive only */
	__le32 flags; /* SVIO_ENTRY_*; written last, carries the ownership */
};

#define SVIO_ENTRY_POSTED 0x80000000 /* equal to the lap bit: device owns it */
#define SVIO_ENTRY_DONE 0x40000000 /* receive, equal to the lap bit: driver owns it */
#define SVIO_ENTRY_MORE 0x00000001 /* the message goes on in the next entry */
#define SVIO_ENTRY_CSUM 0x00000002 /* csum_start and csum_offset hold */
#define SVIO_ENTRY_CSUM_OK 0x00000004 /* receive: checksum was verified */
#define SVIO_ENTRY_SEG 0x00000008 /* seg_* hold */
#define SVIO_ENTRY_VLAN 0x00000010 /* vlan_tci holds */
#define SVIO_ENTRY_HASH 0x00000020 /* receive: hash and hash_type hold */
#define SVIO_ENTRY_LOOP 0x00000040 /* send: back to this VIF; receive: came that way */
#define SVIO_ENTRY_KNOWN \
	(SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE | SVIO_ENTRY_MORE | SVIO_ENTRY_CSUM | SVIO_ENTRY_SEG | \
	 SVIO_ENTRY_VLAN | SVIO_ENTRY_LOOP)

#define SVIO_SEG_NONE 0
#define SVIO_SEG_TCP4 1
#define SVIO_SEG_TCP6 2
#define SVIO_SEG_UDP 3

#define SVIO_HASH_NONE 0
#define SVIO_HASH_IP4 1
#define SVIO_HASH_TCP4 2
#define SVIO_HASH_UDP4 3
#define SVIO_HASH_IP6 4
#define SVIO_HASH_TCP6 5
#define SVIO_HASH_UDP6 6
#define SVIO_RSS_TYPES 0x7e /* all of them, as bits of svio_command.u.rss.hash_types */

/*
 * Event words of a queue. A position that was crossed fires once, see
 * svio_crossed(). The two sides write different cache lines.
 */
struct svio_queue_event {
	__le32 signal_at; /* driver: signal when this position completes */
	__u8 driver_reserved[60];
	__le32 bell_at; /* device: ring when this position is posted */
	__le32 done; /* device, send queue: positions completed */
	__u8 device_reserved[56];
};

/* queue states and error codes of SVIO_QUEUE_STATE */
#define SVIO_QUEUE_DISABLED 0
#define SVIO_QUEUE_RUNNING 1
#define SVIO_QUEUE_STOPPING 2
#define SVIO_QUEUE_ERROR 3
#define SVIO_QUEUE_STATE_OF(v) ((v) & 0xff)
#define SVIO_QUEUE_ERROR_OF(v) (((v) >> 8) & 0xff)

#define SVIO_QERR_NONE 0
#define SVIO_QERR_CONFIG 1 /* size, alignment or vector out of range */
#define SVIO_QERR_DMA 2 /* an address is not RAM that the function may reach */
#define SVIO_QERR_TORN 3 /* a chain goes on into an entry that is not posted */
#define SVIO_QERR_CHAIN 4 /* more than SVIO_CHAIN_MAX entries */
#define SVIO_QERR_LENGTH 5 /* more than SVIO_MESSAGE_MAX bytes */
#define SVIO_QERR_EMPTY 6 /* an entry of zero bytes */
#define SVIO_QERR_FLAGS 7 /* unknown flag, or one that was not negotiated */
#define SVIO_QERR_OFFLOAD 8 /* offload fields point outside the message */
#define SVIO_QERR_COUNT 9

/* ---- commands: mailbox and admin queue (SPEC 7, 8) ---- */
struct svio_command {
	__le16 opcode; /* SVIO_OP_* */
	__le16 flags; /* admin queue: SVIO_COMMAND_*; written last */
	__le16 tag; /* returned as it came */
	__le16 status; /* SVIO_ST_*, written by the device */
	__le32 slot; /* VIF that is meant; SVIO_SLOT_SELF: the caller's own */
	__le32 data_len; /* bytes at data_addr; device: bytes written */
	__le64 data_addr; /* guest address, 0 if the command has no data */
	union {
		__u8 raw[40];
		struct {
			__u8 mac[6];
			__u8 reserved[34];
		} set_mac;
		struct {
			__le32 flags; /* SVIO_RX_* */
			__u8 reserved[36];
		} rx_mode;
		struct {
			__u8 op; /* SVIO_MC_* */
			__u8 count; /* 0..6 */
			__u8 reserved[2];
			__u8 mac[6][6];
		} multicast;
		struct {
			__le32 mtu;
			__u8 reserved[36];
		} set_mtu;
		struct {
			__le16 vid;
			__u8 add; /* 1 add, 0 remove */
			__u8 reserved[37];
		} vlan_filter;
		struct {
			__le32 min_mbps;
			__le32 max_mbps; /* 0 = unlimited */
			__le32 weight; /* 1..1000 */
			__u8 reserved[28];
		} qos;
		struct {
			__le32 count;
			__u8 reserved[36];
		} queue_pairs;
		struct {
			__le32 hash_types; /* bit SVIO_HASH_* */
			__le32 key_len; /* SVIO_RSS_KEY_LEN, or 0: as it is */
			__le32 table_len; /* entries, power of two <= 128, or 0: as it is */
			__u8 reserved[28];
		} rss; /* data: key, then one byte per table entry */
		struct {
			__le32 first; /* slot to start at */
			__le32 count; /* device: how many it wrote */
			__u8 reserved[32];
		} list;
		struct {
			__le64 id; /* the VIF, if `slot` does not name it; VIF_CREATE: device */
			__u8 reserved[32];
		} vif;
		struct {
			__le32 core;
			__u8 reserved[36];
		} core_map;
		struct {
			__le32 vector;
			__u8 reserved[36];
		} test_signal;
		struct {
			__le64 features; /* of SVIO_F_RX_OFFLOADS: those to be used */
			__u8 reserved[32];
		} rx_offloads;
		struct {
			__le32 pair;
			__u8 reserved[36];
		} stats; /* SVIO_STATS_VIF: the VIF's own */
	} u;
};

#define SVIO_SLOT_SELF 0xffffffff
#define SVIO_STATS_VIF 0xffffffff

#define SVIO_COMMAND_POSTED 0x8000 /* equal to the lap bit */
#define SVIO_COMMAND_DONE 0x4000 /* equal to the lap bit */

/* every function, mailbox or admin queue */
#define SVIO_OP_NOP 0x0100
#define SVIO_OP_IDENTIFY 0x0101 /* data: struct svio_vif_info */
#define SVIO_OP_SET_MAC 0x0102
#define SVIO_OP_RX_MODE 0x0103
#define SVIO_OP_MULTICAST 0x0104
#define SVIO_OP_VLAN_FILTER 0x0105
#define SVIO_OP_STATS 0x0106 /* data: __le64 for each SVIO_STAT_* or SVIO_QSTAT_* */
#define SVIO_OP_QOS_REQUEST 0x0107
#define SVIO_OP_RSS 0x0108
#define SVIO_OP_SET_MTU 0x0109
#define SVIO_OP_QUEUE_PAIRS 0x010a
#define SVIO_OP_TEST_SIGNAL 0x010b /* raise a vector of this function */
#define SVIO_OP_RX_OFFLOADS 0x010c
/* admin queue of the PF alone */
#define SVIO_OP_DESCRIBE_OPTIONS 0x0200 /* data: struct svio_option list */
#define SVIO_OP_ACCEPT_OPTIONS 0x0201 /* data: struct svio_option list */
#define SVIO_OP_VIF_CREATE 0x0210 /* data: struct svio_vif_config */
#define SVIO_OP_VIF_DESTROY 0x0211
#define SVIO_OP_VIF_RECONFIGURE 0x0212 /* data: struct svio_vif_config */
#define SVIO_OP_VIF_QUERY 0x0213 /* data: struct svio_vif_config, back */
#define SVIO_OP_VIF_LIST 0x0214 /* data: struct svio_vif_info list, back */
#define SVIO_OP_VIF_BIND 0x0215
#define SVIO_OP_VIF_UNBIND 0x0216
#define SVIO_OP_CORE_LIST 0x0220 /* data: struct svio_core_info list, back */
#define SVIO_OP_CORE_MAP 0x0221

#define SVIO_ST_OK 0
#define SVIO_ST_UNSUPPORTED 1 /* opcode or option not offered */
#define SVIO_ST_INVALID 2 /* a field is out of range */
#define SVIO_ST_DENIED 3 /* not allowed for this function or by policy */
#define SVIO_ST_NOT_FOUND 4 /* no such VIF, slot or core */
#define SVIO_ST_EXISTS 5
#define SVIO_ST_NO_SPACE 6 /* a table is full or the data buffer too short */
#define SVIO_ST_DMA 7 /* the data buffer cannot be reached */
#define SVIO_ST_STATE 8 /* not in this state of the VIF */
#define SVIO_ST_TRIMMED 9 /* done, with smaller figures than asked for */
#define SVIO_ST_COUNT 10

/* Their names, in order, for an array of strings: all doors of management use the same. */
#define SVIO_ST_NAMES \
	"OK", "UNSUPPORTED", "INVALID", "DENIED", "NOT_FOUND", "EXISTS", "NO_SPACE", "DMA", "STATE", \
		"TRIMMED"

#define SVIO_RX_PROMISC 0x1
#define SVIO_RX_ALL_MULTICAST 0x2
#define SVIO_RX_KNOWN 0x3

#define SVIO_MC_CLEAR 0 /* forget all, then add `count` */
#define SVIO_MC_ADD 1
#define SVIO_MC_REMOVE 2

/* one option of DESCRIBE_OPTIONS and ACCEPT_OPTIONS, 8 bytes and its payload */
struct svio_option {
	__le16 id; /* SVIO_OPTION_* */
	__le16 length; /* bytes of payload that follow, a multiple of 8 */
	__le32 required; /* bits that the driver must understand to accept it */
};

#define SVIO_OPTION_END 0
#define SVIO_OPTION_MANAGEMENT 1
#define SVIO_OPTION_QOS 2
#define SVIO_OPTION_SHARED_SIGNALS 3
#define SVIO_OPTION_CORE_MAP 4

struct svio_option_management {
	__le32 slots; /* VFs: slots 1 to this */
	__le32 fields; /* SVIO_CFG_* that the device knows */
};

struct svio_option_qos {
	__le32 port_mbps; /* limit of the port, 0 = none */
	__le32 weight_max;
};

struct svio_option_core_map {
	__le32 cores;
	__le32 reserved;
};

struct svio_vif_info {
	__le64 id;
	__le32 slot;
	__le32 kind;
	__le64 features; /* that the device offers */
	__u8 mac[6]; /* in force now */
	__le16 vlan; /* tag set by management, 0 = none */
	__le32 mtu_max;
	__le32 queue_pairs;
	__le32 queue_size_max;
	__le32 link_up;
	__le32 speed_mbps;
	__le32 min_mbps;
	__le32 max_mbps;
	__le32 weight;
};

struct svio_vif_config {
	__le64 id; /* query: the unique ID; create: ignored */
	__le32 mask; /* SVIO_CFG_*: fields that hold */
	__le32 kind;
	__u8 mac[6];
	__le16 vlan; /* VID | priority << 13 */
	__u8 trust;
	__u8 spoof_check;
	__u8 allow_promisc;
	__u8 allow_multicast;
	__u8 link; /* SVIO_LINK_* */
	__u8 guest_tagging;
	__le16 queue_pairs;
	__le32 queue_size;
	__le32 min_mbps;
	__le32 max_mbps;
	__le32 weight;
	__le32 core; /* SVIO_CORE_AUTO or a core */
	__u8 name[32]; /* UTF-8, zero padded */
	__le32 slot; /* query: where it is bound, SVIO_SLOT_SELF: nowhere */
	/* what a guest may ask for at most, see QOS_REQUEST */
	__le32 limit_min_mbps;
	__le32 limit_max_mbps; /* 0 = unlimited */
	__le32 limit_weight; /* 0 = requests are DENIED */
	__le32 neighbours; /* SVIO_NEIGHBOURS_NONE, or a group: VIFs of one group reach each other */
	__u8 reserved[24];
};

#define SVIO_CFG_MAC (1u << 0)
#define SVIO_CFG_VLAN (1u << 1)
#define SVIO_CFG_TRUST (1u << 2)
#define SVIO_CFG_SPOOF_CHECK (1u << 3)
#define SVIO_CFG_PROMISC (1u << 4)
#define SVIO_CFG_MULTICAST (1u << 5)
#define SVIO_CFG_LINK (1u << 6)
#define SVIO_CFG_GUEST_TAGGING (1u << 7)
#define SVIO_CFG_QUEUES (1u << 8)
#define SVIO_CFG_RATE (1u << 9)
#define SVIO_CFG_WEIGHT (1u << 10)
#define SVIO_CFG_CORE (1u << 11)
#define SVIO_CFG_NAME (1u << 12)
#define SVIO_CFG_QOS_LIMIT (1u << 13)
#define SVIO_CFG_NEIGHBOURS (1u << 14)
#define SVIO_CFG_KNOWN 0x7fff

#define SVIO_NEIGHBOURS_NONE 0xffffffffu /* the port alone */

#define SVIO_VLAN_VID 0x0fff /* of svio_vif_config.vlan */
#define SVIO_VLAN_PRIORITY_SHIFT 13

#define SVIO_LINK_AUTO 0
#define SVIO_LINK_UP 1
#define SVIO_LINK_DOWN 2
#define SVIO_CORE_AUTO 0xffffffff

struct svio_core_info {
	__le32 core;
	__le32 queues; /* it serves */
	__le64 polls;
	__le64 empty_polls;
	__le64 sleeps;
	__le64 busy_ns;
};

/*
 * Counters of a VIF and of a queue, as SVIO_OP_STATS returns them. New ones
 * are added at the end; a shorter buffer receives the first of them.
 */
#define SVIO_STATS(X) \
	X(TX_FRAMES, tx_frames) \
	X(TX_BYTES, tx_bytes) \
	X(RX_FRAMES, rx_frames) \
	X(RX_BYTES, rx_bytes) \
	X(RX_MULTICAST, rx_multicast) \
	X(RX_BROADCAST, rx_broadcast) \
	X(DROP_TX_RUNT, drop_tx_runt) \
	X(DROP_TX_OVERSIZE, drop_tx_oversize) \
	X(DROP_TX_LINK_DOWN, drop_tx_link_down) \
	X(DROP_TX_PORT_ERROR, drop_tx_port_error) \
	X(DROP_TX_RESET, drop_tx_reset) \
	X(DROP_RX_FILTER, drop_rx_filter) \
	X(DROP_RX_NOT_RUNNING, drop_rx_not_running) \
	X(DROP_RX_NO_BUFFER, drop_rx_no_buffer) \
	X(DROP_RX_TOO_LONG, drop_rx_too_long) \
	X(DROP_RX_RUNT, drop_rx_runt) \
	X(DROP_RX_LINK_DOWN, drop_rx_link_down) \
	X(DROP_RX_QUEUE_ERROR, drop_rx_queue_error) \
	X(DROP_RX_RESET, drop_rx_reset) \
	X(DROP_RX_BACKLOG, drop_rx_backlog) \
	X(QUEUE_ERRORS, queue_errors) \
	X(RESETS, resets) \
	X(BAD_REGISTER, bad_register) \
	X(COMMANDS, commands) \
	X(COMMANDS_REFUSED, commands_refused) \
	X(DROP_TX_STALLED, drop_tx_stalled) \
	X(LOOPED, looped) \
	X(DROP_TX_SPOOF, drop_tx_spoof) /* not the VIF's own source MAC */ \
	X(DROP_TX_VLAN, drop_tx_vlan) /* a tag where it may send none */ \
	X(DROP_TX_HAIRPIN, drop_tx_hairpin) /* to itself */ \
	X(SWITCHED_TX, switched_tx) /* of tx_frames: to other VIFs */ \
	X(SWITCHED_RX, switched_rx) /* of rx_frames: from other VIFs */ \
	X(SIGNALS_REDUNDANT, signals_redundant) /* with shared signals: meant for another VIF */ \
	X(DROP_TX_OFFLOAD, drop_tx_offload) /* headers are not what offload fields say */ \
	X(DROP_RX_OFFLOAD, drop_rx_offload) \
	X(DROP_TX_NEIGHBOUR, drop_tx_neighbour) /* to a VIF that it may not reach */

#define SVIO_QSTATS(X) \
	X(POSTED, posted) /* entries taken from the driver */ \
	X(MESSAGES, messages) \
	X(BYTES, bytes) \
	X(CHAINED, chained) /* messages of more than one entry */ \
	X(BELLS, bells) /* doorbell writes that arrived */ \
	X(BELLS_ARMED, bells_armed) \
	X(SIGNALS, signals) /* interrupts sent */ \
	X(SIGNALS_SUPPRESSED, signals_suppressed) \
	X(FULL, full) /* receive: no buffer was posted */ \
	X(ERRORS, errors) \
	/* why: one for each SVIO_QERR_*, in their order */ \
	X(ERROR_CONFIG, error_config) \
	X(ERROR_DMA, error_dma) \
	X(ERROR_TORN, error_torn) \
	X(ERROR_CHAIN, error_chain) \
	X(ERROR_LENGTH, error_length) \
	X(ERROR_EMPTY, error_empty) \
	X(ERROR_FLAGS, error_flags) \
	X(ERROR_OFFLOAD, error_offload)

#define SVIO_STAT_ENUM_(name, text) SVIO_STAT_##name,
#define SVIO_QSTAT_ENUM_(name, text) SVIO_QSTAT_##name,
enum svio_stat { SVIO_STATS(SVIO_STAT_ENUM_) SVIO_STAT_COUNT };
enum svio_qstat { SVIO_QSTATS(SVIO_QSTAT_ENUM_) SVIO_QSTAT_COUNT };

/* Their names, in order, for an array of strings. */
#define SVIO_STAT_NAME_(name, text) #text,
#define SVIO_STAT_NAMES SVIO_STATS(SVIO_STAT_NAME_)
#define SVIO_QSTAT_NAMES SVIO_QSTATS(SVIO_STAT_NAME_)

/* ---- arithmetic on positions ---- */

/* The lap bit (0 or 1) of a position: 1 on the first lap, so that zeroed memory is never live. */
static inline __u32 svio_lap(__u32 position, __u32 size)
{
	return !(position & size);
}

/*
 * Did moving from position `from` to `to` cross `at`? True if `at` lies in
 * [from, to) modulo 2^32. Used in both directions: bells and signals.
 */
static inline int svio_crossed(__u32 at, __u32 from, __u32 to)
{
	return (__u32)(at - from) < (__u32)(to - from);
}

#define SVIO_SIZE(type, size) SVIO_ASSERT(sizeof(struct type) == (size))
#define SVIO_AT(type, field, offset) SVIO_ASSERT(offsetof(struct type, field) == (offset))

SVIO_SIZE(svio_entry, 32);
SVIO_AT(svio_entry, addr, 0);
SVIO_AT(svio_entry, len, 8);
SVIO_AT(svio_entry, csum_start, 12);
SVIO_AT(svio_entry, csum_offset, 14);
SVIO_AT(svio_entry, seg_size, 16);
SVIO_AT(svio_entry, seg_header, 18);
SVIO_AT(svio_entry, vlan_tci, 20);
SVIO_AT(svio_entry, seg_type, 22);
SVIO_AT(svio_entry, hash_type, 23);
SVIO_AT(svio_entry, hash, 24);
SVIO_AT(svio_entry, flags, 28);

SVIO_SIZE(svio_queue_event, 128);
SVIO_AT(svio_queue_event, signal_at, 0);
SVIO_AT(svio_queue_event, driver_reserved, 4);
SVIO_AT(svio_queue_event, bell_at, 64);
SVIO_AT(svio_queue_event, done, 68);
SVIO_AT(svio_queue_event, device_reserved, 72);

SVIO_SIZE(svio_command, 64);
SVIO_AT(svio_command, opcode, 0);
SVIO_AT(svio_command, flags, 2);
SVIO_AT(svio_command, tag, 4);
SVIO_AT(svio_command, status, 6);
SVIO_AT(svio_command, slot, 8);
SVIO_AT(svio_command, data_len, 12);
SVIO_AT(svio_command, data_addr, 16);
SVIO_AT(svio_command, u, 24);
SVIO_AT(svio_command, u.set_mac.mac, 24);
SVIO_AT(svio_command, u.rx_mode.flags, 24);
SVIO_AT(svio_command, u.multicast.op, 24);
SVIO_AT(svio_command, u.multicast.count, 25);
SVIO_AT(svio_command, u.multicast.mac, 28);
SVIO_AT(svio_command, u.set_mtu.mtu, 24);
SVIO_AT(svio_command, u.vlan_filter.vid, 24);
SVIO_AT(svio_command, u.vlan_filter.add, 26);
SVIO_AT(svio_command, u.qos.min_mbps, 24);
SVIO_AT(svio_command, u.qos.max_mbps, 28);
SVIO_AT(svio_command, u.qos.weight, 32);
SVIO_AT(svio_command, u.queue_pairs.count, 24);
SVIO_AT(svio_command, u.rss.hash_types, 24);
SVIO_AT(svio_command, u.rss.key_len, 28);
SVIO_AT(svio_command, u.rss.table_len, 32);
SVIO_AT(svio_command, u.list.first, 24);
SVIO_AT(svio_command, u.list.count, 28);
SVIO_AT(svio_command, u.vif.id, 24);
SVIO_AT(svio_command, u.core_map.core, 24);
SVIO_AT(svio_command, u.stats.pair, 24);
SVIO_AT(svio_command, u.test_signal.vector, 24);
SVIO_AT(svio_command, u.rx_offloads.features, 24);
SVIO_ASSERT(sizeof(((struct svio_command *)0)->u) == 40);

SVIO_SIZE(svio_option, 8);
SVIO_AT(svio_option, id, 0);
SVIO_AT(svio_option, length, 2);
SVIO_AT(svio_option, required, 4);

SVIO_SIZE(svio_option_management, 8);
SVIO_AT(svio_option_management, slots, 0);
SVIO_AT(svio_option_management, fields, 4);
SVIO_SIZE(svio_option_qos, 8);
SVIO_AT(svio_option_qos, port_mbps, 0);
SVIO_AT(svio_option_qos, weight_max, 4);
SVIO_SIZE(svio_option_core_map, 8);
SVIO_AT(svio_option_core_map, cores, 0);

SVIO_SIZE(svio_vif_info, 64);
SVIO_AT(svio_vif_info, id, 0);
SVIO_AT(svio_vif_info, slot, 8);
SVIO_AT(svio_vif_info, kind, 12);
SVIO_AT(svio_vif_info, features, 16);
SVIO_AT(svio_vif_info, mac, 24);
SVIO_AT(svio_vif_info, vlan, 30);
SVIO_AT(svio_vif_info, mtu_max, 32);
SVIO_AT(svio_vif_info, queue_pairs, 36);
SVIO_AT(svio_vif_info, queue_size_max, 40);
SVIO_AT(svio_vif_info, link_up, 44);
SVIO_AT(svio_vif_info, speed_mbps, 48);
SVIO_AT(svio_vif_info, min_mbps, 52);
SVIO_AT(svio_vif_info, max_mbps, 56);
SVIO_AT(svio_vif_info, weight, 60);

SVIO_SIZE(svio_vif_config, 128);
SVIO_AT(svio_vif_config, id, 0);
SVIO_AT(svio_vif_config, mask, 8);
SVIO_AT(svio_vif_config, kind, 12);
SVIO_AT(svio_vif_config, mac, 16);
SVIO_AT(svio_vif_config, vlan, 22);
SVIO_AT(svio_vif_config, trust, 24);
SVIO_AT(svio_vif_config, spoof_check, 25);
SVIO_AT(svio_vif_config, allow_promisc, 26);
SVIO_AT(svio_vif_config, allow_multicast, 27);
SVIO_AT(svio_vif_config, link, 28);
SVIO_AT(svio_vif_config, guest_tagging, 29);
SVIO_AT(svio_vif_config, queue_pairs, 30);
SVIO_AT(svio_vif_config, queue_size, 32);
SVIO_AT(svio_vif_config, min_mbps, 36);
SVIO_AT(svio_vif_config, max_mbps, 40);
SVIO_AT(svio_vif_config, weight, 44);
SVIO_AT(svio_vif_config, core, 48);
SVIO_AT(svio_vif_config, name, 52);
SVIO_AT(svio_vif_config, slot, 84);
SVIO_AT(svio_vif_config, limit_min_mbps, 88);
SVIO_AT(svio_vif_config, limit_max_mbps, 92);
SVIO_AT(svio_vif_config, limit_weight, 96);
SVIO_AT(svio_vif_config, neighbours, 100);
SVIO_AT(svio_vif_config, reserved, 104);

SVIO_SIZE(svio_core_info, 40);
SVIO_AT(svio_core_info, core, 0);
SVIO_AT(svio_core_info, queues, 4);
SVIO_AT(svio_core_info, polls, 8);
SVIO_AT(svio_core_info, empty_polls, 16);
SVIO_AT(svio_core_info, sleeps, 24);
SVIO_AT(svio_core_info, busy_ns, 32);

#endif /* SVIO_ABI_H */
