/* SPDX-License-Identifier: GPL-2.0-or-later */
/* svio VIF driver: private header. The contract is svio_abi.h. */
#ifndef SVIO_H
#define SVIO_H

#include <linux/bpf.h>
#include <linux/dim.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/if_vlan.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/u64_stats_sync.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <net/xdp.h>

#include "svio_abi.h"

/* ---- kernel versions: everything that differs is here ---- */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#include <net/page_pool.h>
#else
#include <net/page_pool/helpers.h>
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#include <net/netdev_queues.h>
#define SVIO_HAVE_STAT_OPS
#endif

/* Page fragments were a feature of a pool before all pools had them. */
#ifndef PP_FLAG_PAGE_FRAG
#define PP_FLAG_PAGE_FRAG 0
#endif

static inline void svio_pool_set_napi(struct page_pool_params *params, struct napi_struct *napi)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	params->napi = napi;
#endif
}

/* Linux 6.1 does not ask what a driver can do for XDP. */
static inline void svio_set_xdp_features(struct net_device *netdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	xdp_set_features_flag(netdev, NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT |
			      NETDEV_XDP_ACT_NDO_XMIT);
#endif
}

/* What netdev-genl tells of queues, NAPI and interrupts. */
static inline void svio_napi_set_irq(struct napi_struct *napi, int irq)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	netif_napi_set_irq(napi, irq);
#endif
}

static inline void svio_queues_set_napi(struct net_device *netdev, u32 index,
					struct napi_struct *napi)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	netif_queue_set_napi(netdev, index, NETDEV_QUEUE_TYPE_RX, napi);
	netif_queue_set_napi(netdev, index, NETDEV_QUEUE_TYPE_TX, napi);
#endif
}

/* Whether GRO holds no frame of this NAPI, and is not told to hold any beyond a poll. */
static inline bool svio_gro_idle(const struct napi_struct *napi)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	return !napi->gro.bitmask && !READ_ONCE(napi->gro_flush_timeout);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	return !napi->gro_bitmask && !READ_ONCE(napi->gro_flush_timeout);
#else
	return !napi->gro_bitmask && !READ_ONCE(napi->dev->gro_flush_timeout);
#endif
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define SVIO_HAVE_RXFH_PARAM
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define SVIO_HAVE_PARAM_EXTACK
#endif

#define SVIO_DRV_NAME "svio"

#define SVIO_FEATURES_WANTED \
	(SVIO_F_RX_CHAIN | SVIO_F_MODERATION | SVIO_F_MULTICAST | SVIO_F_LOOPBACK | \
	 SVIO_F_RX_HASH | SVIO_F_CSUM_TX | SVIO_F_CSUM_RX | SVIO_F_SEG_TCP4 | SVIO_F_SEG_TCP6 | \
	 SVIO_F_SEG_UDP | SVIO_F_RX_SEG | SVIO_F_VLAN_TX | SVIO_F_VLAN_RX | \
	 SVIO_F_QOS_REQUEST)

#define SVIO_RX_HEADROOM (NET_SKB_PAD + NET_IP_ALIGN)
#define SVIO_RX_TAILROOM SKB_DATA_ALIGN(sizeof(struct skb_shared_info))
/* With an XDP program a frame has one buffer, a page with room for what the program puts before it. */
#define SVIO_XDP_HEADROOM (XDP_PACKET_HEADROOM + NET_IP_ALIGN)
#define SVIO_XDP_MTU_MAX \
	(PAGE_SIZE - SVIO_XDP_HEADROOM - SVIO_RX_TAILROOM - ETH_HLEN - 2 * VLAN_HLEN)
#define SVIO_RX_COPYBREAK 256
#define SVIO_RX_BATCH 32 /* entries of one refill */
#define SVIO_RX_RETRY (HZ / 10) /* after a failed allocation */

#define SVIO_TX_BUDGET 256 /* entries that one poll completes */
#define SVIO_TX_RECLAIM 32 /* entries done when the sender itself asks for a poll */
#define SVIO_TX_FRAMES 64 /* moderation of send signals */
#define SVIO_TX_USECS 250

#define SVIO_READY_TIMEOUT_US (2 * USEC_PER_SEC)
#define SVIO_STOP_TIMEOUT_US USEC_PER_SEC
#define SVIO_MBOX_TIMEOUT_US USEC_PER_SEC
#define SVIO_MBOX_DATA PAGE_SIZE
#define SVIO_RESET_TRIES 5

struct devlink;
struct svio_admin;
struct svio_priv;

/* What both directions have. Shared memory, written by both sides. */
struct svio_ring {
	struct svio_entry *entry;
	struct svio_queue_event *event;
	dma_addr_t entry_dma;
	dma_addr_t event_dma;
	u32 size;
};

/* Who owns the buffer of an entry that is being sent. */
enum svio_tx_kind {
	SVIO_TX_SKB,
	SVIO_TX_XDP_OWN, /* a page of our own pool goes back out: mapped already */
	SVIO_TX_XDP_FRAME, /* redirected to us */
};

/* An entry of the send queue. The skb hangs on the last entry of its chain. */
struct svio_tx_buf {
	union {
		struct sk_buff *skb;
		struct xdp_frame *xdpf;
	};
	DEFINE_DMA_UNMAP_ADDR(dma);
	DEFINE_DMA_UNMAP_LEN(len);
	bool frag;
	u8 kind; /* SVIO_TX_* */
};

struct svio_tx {
	struct svio_ring ring;
	struct svio_tx_buf *buf;
	struct svio_priv *priv;
	struct netdev_queue *txq;
	void __iomem *bell;
	u32 chain_max; /* entries of the longest message that we make */
	u32 wake_at; /* free entries that wake a stopped queue */
	u32 head_flags; /* for the self test; under the queue's lock */
	bool broken; /* the device broke the contract: wait for the reset */

	/* written by the sender */
	u32 use ____cacheline_aligned_in_smp; /* next position to post */
	u32 belled; /* positions that were checked against bell_at */

	/* written by NAPI */
	u32 clean ____cacheline_aligned_in_smp; /* next position to complete */

	struct {
		struct u64_stats_sync sync;
		u64_stats_t dropped;
		u64_stats_t linearized;
		u64_stats_t stops;
		u64_stats_t bells;
		u64_stats_t bells_suppressed;
		u64_stats_t lost; /* still in the queue when it was stopped */
		u64_stats_t xdp_sent; /* XDP_TX and redirected frames */
		u64_stats_t xdp_full;
	} send ____cacheline_aligned_in_smp;
	struct {
		struct u64_stats_sync sync;
		u64_stats_t packets;
		u64_stats_t bytes;
		u64_stats_t wakes;
	} done ____cacheline_aligned_in_smp;
};

struct svio_rx_buf {
	struct page *page;
	u32 offset; /* of the buffer in the page, headroom included */
	u32 truesize;
	u32 len; /* of the part of a message in it, once checked */
};

struct svio_rx {
	struct svio_ring ring;
	struct svio_rx_buf *buf;
	struct page_pool *pool;
	struct svio_priv *priv;
	struct napi_struct *napi;
	void __iomem *bell;
	u32 next; /* next position to complete */
	u32 post; /* next position to post */
	u16 index;
	bool broken;
	u32 headroom; /* of each buffer; SVIO_XDP_HEADROOM: for XDP */
	u8 xdp_todo; /* SVIO_XDP_*: what the end of this poll is to flush */
	struct xdp_rxq_info rxq;

	struct dim dim;

	struct {
		struct u64_stats_sync sync;
		u64_stats_t packets;
		u64_stats_t bytes;
		u64_stats_t multicast;
		u64_stats_t copied;
		u64_stats_t chained;
		u64_stats_t dropped;
		u64_stats_t length_errors;
		u64_stats_t alloc_failed;
		u64_stats_t bells;
		u64_stats_t bells_suppressed;
		u64_stats_t xdp_pass;
		u64_stats_t xdp_drop;
		u64_stats_t xdp_tx;
		u64_stats_t xdp_redirect;
		u64_stats_t xdp_errors; /* aborted, or not sent */
		u64_stats_t xdp_too_long;
	} stats;
};

/* The memory of a pair while the pair does not use it: see svio_reconfigure(). */
struct svio_pair_mem {
	struct svio_ring tx_ring;
	struct svio_tx_buf *tx_buf;
	struct svio_ring rx_ring;
	struct svio_rx_buf *rx_buf;
	struct page_pool *pool;
	struct xdp_rxq_info rxq;
	u32 headroom;
};

struct svio_pair {
	struct napi_struct napi;
	struct svio_priv *priv;
	u16 index;
	struct {
		struct u64_stats_sync sync;
		u64_stats_t polls;
		u64_stats_t repolls; /* work came between the last look and arming */
	} stats;
	atomic64_t irqs;
	char irq_name[IFNAMSIZ + 16];
	struct svio_tx tx;
	struct svio_rx rx;
};

/* What the VIF gets of the port. */
struct svio_qos {
	u32 min_mbps;
	u32 max_mbps; /* 0: no limit */
	u32 weight;
};

/* Bits of svio_priv.state. */
enum {
	SVIO_OPEN, /* memory and interrupts of the pairs are there; under RTNL */
	SVIO_UP, /* queues and NAPI run; written under RTNL */
	SVIO_DETACHED, /* hands off: PCI reset, shutdown, given up; under RTNL */
	SVIO_GONE, /* registers read as all ones */
	SVIO_WANT_RESET,
	SVIO_WANT_RX_MODE,
	SVIO_TESTING, /* the self test waits for its frames */
	SVIO_EMPTY, /* there is no VIF in this slot, and no net device */
	SVIO_REPROBING, /* the VIF came or went */
};

struct svio_priv {
	struct net_device *netdev;
	struct pci_dev *pdev;
	void __iomem *regs;
	u64 features; /* negotiated */
	u32 abi_version;
	u64 vif_id;
	u16 vlan; /* that management puts us into, with the priority */
	u16 pairs; /* in use; under RTNL */
	u16 pairs_max; /* of the device, with a vector each */
	u32 ring_max;
	u32 tx_size;
	u32 rx_size;
	u32 tx_moderation; /* as SVIO_QUEUE_MODERATION */
	u32 rx_moderation;
	bool rx_adaptive; /* DIM decides instead */
	bool has_vectors; /* else the service task polls for a VIF */
	bool xdp; /* buffers are such that XDP can use them */
	bool rx_large; /* or such that unsplit segments fit as many as an skb takes */
	struct bpf_prog __rcu *xdp_prog;
	u32 max_mtu; /* without XDP */
	int msg_enable;
	struct svio_selftest *test;
	unsigned long state;

	struct mutex mbox_lock; /* one command at a time, and its data buffer */
	void *mbox_data;
	dma_addr_t mbox_data_dma;
	u16 mbox_tag;

	atomic_t events; /* SVIO_EVENT_* that wait for the service task */
	struct delayed_work service;
	struct delayed_work refill;
	unsigned long last_reset;
	unsigned int reset_failures;
	atomic64_t resets;
	atomic64_t event_irqs;
	atomic64_t tx_timeouts;
	u8 *mc_list; /* snapshot, SVIO_MULTICAST_MAX addresses; under RTNL */

	/* Receive hashing as the device is told of it. Under RTNL. */
	u32 rss_types; /* bits SVIO_HASH_* */
	u8 rss_key[SVIO_RSS_KEY_LEN];
	u8 rss_table[SVIO_RSS_TABLE_MAX];

	struct svio_admin *admin; /* of a PF with management */
	struct svio_vif_config *vf_saved; /* during a reset or a sleep of the PF */
	struct devlink *devlink;
	bool devlink_params;

	struct svio_pair pair[SVIO_MAX_QUEUE_PAIRS];
};

static inline u32 svio_rd(struct svio_priv *priv, u32 reg)
{
	return readl(priv->regs + reg);
}

static inline void svio_wr(struct svio_priv *priv, u32 reg, u32 value)
{
	writel(value, priv->regs + reg);
}

static inline bool svio_rx_xdp(const struct svio_rx *rx)
{
	return rx->headroom == SVIO_XDP_HEADROOM;
}

/* Adds one to a counter whose writer is serialized by NAPI or the queue's lock. */
static inline void svio_count(struct u64_stats_sync *sync, u64_stats_t *counter)
{
	u64_stats_update_begin(sync);
	u64_stats_inc(counter);
	u64_stats_update_end(sync);
}

/* svio_hw.c: the function and its queues as registers */
int svio_hw_identify(struct svio_priv *priv);
int svio_hw_reset(struct svio_priv *priv);
int svio_hw_init(struct svio_priv *priv);
void svio_hw_read_mac(struct svio_priv *priv, u8 *mac);
int svio_hw_start_pair(struct svio_priv *priv, int index);
void svio_hw_stop_pair(struct svio_priv *priv, int index);
int svio_hw_start_queues(struct svio_priv *priv);
void svio_hw_stop_queues(struct svio_priv *priv);
bool svio_hw_gone(struct svio_priv *priv);
void svio_hw_log_errors(struct svio_priv *priv);

/* svio_mbox.c: mailbox commands. Process context. */
int svio_status_errno(u16 status);
int svio_mbox_set_mac(struct svio_priv *priv, const u8 *mac);
int svio_mbox_set_mtu(struct svio_priv *priv, u32 mtu);
int svio_mbox_queue_pairs(struct svio_priv *priv, u32 count);
int svio_mbox_rss(struct svio_priv *priv);
int svio_mbox_identify(struct svio_priv *priv, struct svio_vif_info *info);
int svio_mbox_rx_mode(struct svio_priv *priv, u32 flags);
int svio_mbox_multicast(struct svio_priv *priv, const u8 *mac, int count);
int svio_mbox_rx_offloads(struct svio_priv *priv, u64 features);
int svio_mbox_test_signal(struct svio_priv *priv, u32 vector);
int svio_mbox_qos(struct svio_priv *priv, struct svio_qos *qos);
int svio_mbox_stats(struct svio_priv *priv, u32 pair, u64 *send, u64 *receive, int max);

/* svio_admin.c: the admin queue of a PF. Process context. */
int svio_admin_alloc(struct svio_priv *priv);
void svio_admin_free(struct svio_priv *priv);
void svio_admin_start(struct svio_priv *priv);
void svio_admin_forget(struct svio_priv *priv);
void svio_admin_irq(struct svio_priv *priv); /* from any context */
bool svio_admin_has(const struct svio_priv *priv, u32 option);
int svio_admin_command(struct svio_priv *priv, struct svio_command *cmd, const void *in,
		       u32 in_len, void *out, u32 out_len);

/* svio_sriov.c. The operations of VFs under RTNL, what concerns resets and sleep without. */
int svio_sriov_configure(struct pci_dev *pdev, int count);
void svio_sriov_remove(struct svio_priv *priv);
void svio_sriov_prepare_reset(struct svio_priv *priv);
void svio_sriov_reset_done(struct svio_priv *priv);
void svio_sriov_prepare_sleep(struct svio_priv *priv);
void svio_sriov_wake(struct svio_priv *priv);
int svio_set_vf_mac(struct net_device *netdev, int vf, u8 *mac);
int svio_set_vf_vlan(struct net_device *netdev, int vf, u16 vlan, u8 qos, __be16 proto);
int svio_set_vf_rate(struct net_device *netdev, int vf, int min_rate, int max_rate);
int svio_set_vf_spoofchk(struct net_device *netdev, int vf, bool on);
int svio_set_vf_trust(struct net_device *netdev, int vf, bool on);
int svio_set_vf_link_state(struct net_device *netdev, int vf, int state);
int svio_get_vf_config(struct net_device *netdev, int vf, struct ifla_vf_info *info);
int svio_get_vf_stats(struct net_device *netdev, int vf, struct ifla_vf_stats *stats);

/* svio_slot.c: VIFs that come to a function and go */
int svio_slot_init(void);
void svio_slot_exit(void);
void svio_probe_again(struct svio_priv *priv);
u64 svio_vif_id(struct svio_priv *priv);
bool svio_slot_fits(struct svio_priv *priv);
void svio_slot_await(struct svio_priv *priv);
int svio_slot_listen(struct svio_priv *priv);
bool svio_slot_check(struct svio_priv *priv);

/* svio_devlink.c */
void svio_devlink_register(struct svio_priv *priv);
void svio_devlink_unregister(struct svio_priv *priv);

/* svio_txrx.c: memory of a pair, NAPI, the send queue */
int svio_pair_alloc(struct svio_pair *pair);
void svio_pair_free(struct svio_pair *pair);
void svio_pair_clear(struct svio_pair *pair);
int svio_mem_alloc(struct svio_pair *pair, struct svio_pair_mem *mem, u32 tx_size, u32 rx_size,
		   bool xdp);
void svio_mem_free(struct svio_pair *pair, struct svio_pair_mem *mem);
void svio_mem_swap(struct svio_pair *pair, struct svio_pair_mem *mem);
void svio_pair_purge(struct svio_pair *pair);
int svio_poll(struct napi_struct *napi, int budget);
void svio_napi_kick(struct svio_pair *pair);
bool svio_bell(const struct svio_ring *ring, void __iomem *bell, u32 from, u32 to);
netdev_tx_t svio_start_xmit(struct sk_buff *skb, struct net_device *netdev);
u32 svio_tx_free(const struct svio_tx *tx);
void svio_tx_publish(struct svio_tx *tx, u32 head, u32 count, u32 head_flags);
void svio_tx_kick(struct svio_tx *tx);

/* svio_rx.c: the receive queue */
int svio_rx_clean(struct svio_rx *rx, int budget);
bool svio_rx_ready(const struct svio_rx *rx);
void svio_rx_fill(struct svio_rx *rx);
void svio_rx_purge(struct svio_rx *rx);
struct svio_rx_buf *svio_rx_buf(const struct svio_rx *rx, u32 position);
struct svio_entry *svio_rx_entry(const struct svio_rx *rx, u32 position);
void *svio_rx_sync(struct svio_rx *rx, const struct svio_rx_buf *buf);

/* svio_xdp.c. svio_xdp_receive() returns what the stack is to have, if anything. */
struct sk_buff *svio_xdp_receive(struct svio_rx *rx, int count, u32 bytes);
void svio_xdp_flush(struct svio_rx *rx);
void svio_xdp_return(struct svio_tx *tx, struct svio_tx_buf *buf, int budget);
int svio_xdp_xmit(struct net_device *netdev, int count, struct xdp_frame **frames, u32 flags);
int svio_bpf(struct net_device *netdev, struct netdev_bpf *bpf);

/* svio_offload.c */
u32 svio_tx_offload(struct svio_entry *head, const struct sk_buff *skb);
bool svio_rx_offload(const struct svio_entry *head, u32 flags, struct sk_buff *skb);
netdev_features_t svio_features_check(struct sk_buff *skb, struct net_device *netdev,
				      netdev_features_t features);
netdev_features_t svio_fix_features(struct net_device *netdev, netdev_features_t features);
int svio_set_features(struct net_device *netdev, netdev_features_t features);
int svio_apply_offloads(struct svio_priv *priv);
void svio_setup_offloads(struct svio_priv *priv);

/* svio_reconf.c: other sizes and kinds of buffers, with the interface up or not. Under RTNL. */
int svio_reconfigure(struct svio_priv *priv, u32 tx_size, u32 rx_size, bool xdp);

/* svio_coalesce.c */
int svio_get_coalesce(struct net_device *netdev, struct ethtool_coalesce *coal,
		      struct kernel_ethtool_coalesce *kernel_coal,
		      struct netlink_ext_ack *extack);
int svio_set_coalesce(struct net_device *netdev, struct ethtool_coalesce *coal,
		      struct kernel_ethtool_coalesce *kernel_coal,
		      struct netlink_ext_ack *extack);
void svio_dim_init(struct svio_rx *rx);
u32 svio_dim_start(struct svio_rx *rx);
void svio_dim_poll(struct svio_pair *pair);
void svio_dim_stop(struct svio_rx *rx);

/* svio_regs.c */
int svio_get_regs_len(struct net_device *netdev);
void svio_get_regs(struct net_device *netdev, struct ethtool_regs *regs, void *data);

/* svio_selftest.c */
#define SVIO_TESTS 4
extern const char svio_test_names[SVIO_TESTS][ETH_GSTRING_LEN];
void svio_self_test(struct net_device *netdev, struct ethtool_test *etest, u64 *data);
bool svio_selftest_take(struct svio_rx *rx, int count, u32 bytes);

/* svio_service.c: what needs process context. Under RTNL unless said otherwise. */
void svio_service(struct work_struct *work); /* takes RTNL */
void svio_refill(struct work_struct *work); /* without RTNL */
void svio_request_reset(struct svio_priv *priv); /* from any context */
int svio_restore(struct svio_priv *priv);
int svio_revive(struct svio_priv *priv);

/* svio_queues.c: the number of pairs, receive hashing, what runs where. Under RTNL. */
int svio_set_real_pairs(struct svio_priv *priv, int count);
void svio_spread_senders(struct svio_priv *priv);
int svio_apply_rss(struct svio_priv *priv);
void svio_setup_queues(struct svio_priv *priv);
void svio_get_channels(struct net_device *netdev, struct ethtool_channels *ch);
int svio_set_channels(struct net_device *netdev, struct ethtool_channels *ch);
u32 svio_get_rxfh_indir_size(struct net_device *netdev);
u32 svio_get_rxfh_key_size(struct net_device *netdev);
#ifdef SVIO_HAVE_RXFH_PARAM
int svio_get_rxfh(struct net_device *netdev, struct ethtool_rxfh_param *rxfh);
int svio_set_rxfh(struct net_device *netdev, struct ethtool_rxfh_param *rxfh,
		  struct netlink_ext_ack *extack);
#else
int svio_get_rxfh(struct net_device *netdev, u32 *indir, u8 *key, u8 *hfunc);
int svio_set_rxfh(struct net_device *netdev, const u32 *indir, const u8 *key, const u8 hfunc);
#endif
int svio_get_rxnfc(struct net_device *netdev, struct ethtool_rxnfc *nfc, u32 *rules);
int svio_set_rxnfc(struct net_device *netdev, struct ethtool_rxnfc *nfc);

/* svio_main.c. Under RTNL. */
int svio_request_pair_irq(struct svio_pair *pair);
void svio_free_pair_irq(struct svio_pair *pair);
void svio_pair_up(struct svio_pair *pair);
void svio_pair_down(struct svio_pair *pair);
int svio_up(struct svio_priv *priv);
void svio_down(struct svio_priv *priv);
void svio_update_carrier(struct svio_priv *priv);
int svio_open(struct net_device *netdev);
int svio_stop(struct net_device *netdev);
void svio_reset_prepare(struct pci_dev *pdev); /* takes RTNL */
void svio_reset_done(struct pci_dev *pdev); /* takes RTNL */

/* svio_pm.c. Under RTNL unless said otherwise. */
void svio_detach(struct svio_priv *priv);
void svio_attach(struct svio_priv *priv);
void svio_power_down(struct svio_priv *priv); /* takes RTNL */
extern const struct dev_pm_ops svio_pm_ops;

/* svio_ethtool.c */
extern const struct ethtool_ops svio_ethtool_ops;

#endif /* SVIO_H */
