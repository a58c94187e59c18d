// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * svio VIF driver: the number of queue pairs and receive hashing (SPEC 5.7), as
 * ethtool -l, -L, -x, -X and netdev-genl show and set them. All under RTNL.
 */
#include <linux/delay.h>

#include "svio.h"

#define SVIO_DRAIN_TRIES 100 /* of a millisecond or two */

static bool svio_hashes(const struct svio_priv *priv)
{
	return priv->features & SVIO_F_RX_HASH;
}

/* ---- what the device is told ---- */

/* Also after a reset: the number of pairs before the table, which speaks of them. */
int svio_apply_rss(struct svio_priv *priv)
{
	int err = 0;

	if (priv->pairs_max > 1)
		err = svio_mbox_queue_pairs(priv, priv->pairs);
	if (!err && svio_hashes(priv))
		err = svio_mbox_rss(priv);
	return err;
}

static void svio_spread_table(struct svio_priv *priv)
{
	int i;

	for (i = 0; i < SVIO_RSS_TABLE_MAX; i++)
		priv->rss_table[i] = ethtool_rxfh_indir_default(i, priv->pairs);
}

/* Takes over a number of pairs; what the user has set as a table stays. */
static int svio_use_pairs(struct svio_priv *priv, int count)
{
	/* svio_xdp_xmit() looks at it at any time. */
	WRITE_ONCE(priv->pairs, count);
	if (!netif_is_rxfh_configured(priv->netdev))
		svio_spread_table(priv);
	return svio_apply_rss(priv);
}

/* Each CPU sends by queues of its own, as far as they go. */
void svio_spread_senders(struct svio_priv *priv)
{
	int i, n, cpu, cpus = num_online_cpus();
	cpumask_var_t mask;

	if (priv->pairs == 1 || !alloc_cpumask_var(&mask, GFP_KERNEL))
		return;
	for (i = 0; i < priv->pairs; i++) {
		cpumask_clear(mask);
		n = 0;
		for_each_online_cpu(cpu) {
			if (priv->pairs < cpus ? n % priv->pairs == i : i % cpus == n)
				cpumask_set_cpu(cpu, mask);
			n++;
		}
		if (netif_set_xps_queue(priv->netdev, mask, i))
			break; /* only a matter of speed */
	}
	free_cpumask_var(mask);
}

/* ---- more or fewer pairs while the interface is up ---- */

static void svio_remove_pair(struct svio_pair *pair)
{
	svio_pair_down(pair);
	svio_hw_stop_pair(pair->priv, pair->index);
	svio_pair_purge(pair);
	svio_free_pair_irq(pair);
	svio_pair_free(pair);
}

static int svio_add_pair(struct svio_pair *pair)
{
	struct svio_priv *priv = pair->priv;
	int err;

	err = svio_pair_alloc(pair);
	if (err)
		return err;
	err = svio_request_pair_irq(pair);
	if (err) {
		svio_pair_free(pair);
		return err;
	}
	err = svio_hw_start_pair(priv, pair->index);
	if (!err) {
		local_bh_disable();
		svio_rx_fill(&pair->rx);
		local_bh_enable();
	}
	svio_pair_up(pair);
	if (err)
		svio_remove_pair(pair);
	return err;
}

/* Nothing is sent to it and nothing received for it any more: wait for what is on its way. */
static void svio_drain_pair(struct svio_pair *pair)
{
	int tries;

	for (tries = 0; tries < SVIO_DRAIN_TRIES; tries++) {
		if (!svio_rx_ready(&pair->rx) &&
		    READ_ONCE(pair->tx.clean) == READ_ONCE(pair->tx.use))
			break;
		svio_napi_kick(pair);
		usleep_range(1000, 2000);
	}
}

static int svio_remove_pairs(struct svio_priv *priv, int count)
{
	struct net_device *netdev = priv->netdev;
	int old = priv->pairs, err, i;

	/* When it returns no sender uses the queues above. */
	err = netif_set_real_num_tx_queues(netdev, count);
	if (err)
		return err;
	err = svio_use_pairs(priv, count);
	if (err) {
		svio_use_pairs(priv, old);
		netif_set_real_num_tx_queues(netdev, old);
		return err;
	}
	synchronize_net(); /* what XDP redirects to them */
	for (i = old - 1; i >= count; i--) {
		svio_drain_pair(&priv->pair[i]);
		svio_remove_pair(&priv->pair[i]);
	}
	/* Only now: until then NAPI handed up messages of those. */
	return netif_set_real_num_rx_queues(netdev, count);
}

static int svio_add_pairs(struct svio_priv *priv, int count)
{
	int old = priv->pairs, i, err = 0;

	for (i = old; i < count; i++) {
		err = svio_add_pair(&priv->pair[i]);
		if (err)
			goto undo;
	}
	/* Before the device is told, that it may deliver there. */
	err = svio_set_real_pairs(priv, count);
	if (err)
		goto undo;
	for (i = old; i < count; i++)
		netif_tx_start_queue(netdev_get_tx_queue(priv->netdev, i));
	err = svio_use_pairs(priv, count);
	if (!err)
		return 0;
	svio_remove_pairs(priv, old);
	return err;

undo:
	while (i-- > old)
		svio_remove_pair(&priv->pair[i]);
	return err;
}

int svio_set_real_pairs(struct svio_priv *priv, int count)
{
	return netif_set_real_num_queues(priv->netdev, count, count);
}

static int svio_change_pairs(struct svio_priv *priv, int count)
{
	int old = priv->pairs, err;

	if (test_bit(SVIO_DETACHED, &priv->state))
		return -ENODEV;
	if (!test_bit(SVIO_OPEN, &priv->state)) {
		err = svio_set_real_pairs(priv, count);
		if (!err)
			err = svio_use_pairs(priv, count);
		if (err) {
			priv->pairs = old;
			svio_set_real_pairs(priv, old);
		}
		return err;
	}
	if (!test_bit(SVIO_UP, &priv->state))
		return -EBUSY; /* a reset is on its way */
	return count > old ? svio_add_pairs(priv, count) : svio_remove_pairs(priv, count);
}

/* ---- ethtool -l, -L ---- */

void svio_get_channels(struct net_device *netdev, struct ethtool_channels *ch)
{
	struct svio_priv *priv = netdev_priv(netdev);

	ch->max_combined = priv->pairs_max;
	ch->combined_count = priv->pairs;
	/* The vector of events. */
	ch->max_other = 1;
	ch->other_count = 1;
}

int svio_set_channels(struct net_device *netdev, struct ethtool_channels *ch)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int err;

	if (ch->other_count != 1 || !ch->combined_count)
		return -EINVAL;
	if (ch->combined_count == priv->pairs)
		return 0;
	err = svio_change_pairs(priv, ch->combined_count);
	if (!err)
		svio_spread_senders(priv);
	return err;
}

/* ---- ethtool -x, -X ---- */

u32 svio_get_rxfh_indir_size(struct net_device *netdev)
{
	return svio_hashes(netdev_priv(netdev)) ? SVIO_RSS_TABLE_MAX : 0;
}

u32 svio_get_rxfh_key_size(struct net_device *netdev)
{
	return svio_hashes(netdev_priv(netdev)) ? SVIO_RSS_KEY_LEN : 0;
}

static void svio_read_rss(const struct svio_priv *priv, u32 *table, u8 *key, u8 *function)
{
	int i;

	if (table)
		for (i = 0; i < SVIO_RSS_TABLE_MAX; i++)
			table[i] = priv->rss_table[i];
	if (key)
		memcpy(key, priv->rss_key, SVIO_RSS_KEY_LEN);
	if (function)
		*function = ETH_RSS_HASH_TOP;
}

static int svio_write_rss(struct svio_priv *priv, const u32 *table, const u8 *key, u8 function)
{
	u8 old_table[SVIO_RSS_TABLE_MAX], old_key[SVIO_RSS_KEY_LEN];
	int i, err;

	if (!svio_hashes(priv) ||
	    (function != ETH_RSS_HASH_NO_CHANGE && function != ETH_RSS_HASH_TOP))
		return -EOPNOTSUPP;
	memcpy(old_table, priv->rss_table, sizeof(old_table));
	memcpy(old_key, priv->rss_key, sizeof(old_key));
	if (table)
		for (i = 0; i < SVIO_RSS_TABLE_MAX; i++)
			priv->rss_table[i] = table[i];
	if (key)
		memcpy(priv->rss_key, key, SVIO_RSS_KEY_LEN);
	err = svio_mbox_rss(priv);
	if (err) {
		memcpy(priv->rss_table, old_table, sizeof(old_table));
		memcpy(priv->rss_key, old_key, sizeof(old_key));
	}
	return err;
}

#ifdef SVIO_HAVE_RXFH_PARAM
int svio_get_rxfh(struct net_device *netdev, struct ethtool_rxfh_param *rxfh)
{
	svio_read_rss(netdev_priv(netdev), rxfh->indir, rxfh->key, &rxfh->hfunc);
	return 0;
}

int svio_set_rxfh(struct net_device *netdev, struct ethtool_rxfh_param *rxfh,
		  struct netlink_ext_ack *extack)
{
	return svio_write_rss(netdev_priv(netdev), rxfh->indir, rxfh->key, rxfh->hfunc);
}
#else
int svio_get_rxfh(struct net_device *netdev, u32 *indir, u8 *key, u8 *hfunc)
{
	svio_read_rss(netdev_priv(netdev), indir, key, hfunc);
	return 0;
}

int svio_set_rxfh(struct net_device *netdev, const u32 *indir, const u8 *key, const u8 hfunc)
{
	return svio_write_rss(netdev_priv(netdev), indir, key, hfunc);
}
#endif

/* ---- ethtool -n, -N rx-flow-hash ---- */

#define SVIO_RXH_ADDRESSES (RXH_IP_SRC | RXH_IP_DST)
#define SVIO_RXH_PORTS (RXH_L4_B_0_1 | RXH_L4_B_2_3)

/* The hash types of a kind of flow: by its ports (0 if it has none) and by address. */
static int svio_flow_types(u32 flow_type, u32 *ports, u32 *addresses)
{
	*ports = 0;
	*addresses = BIT(SVIO_HASH_IP4);
	switch (flow_type) {
	case TCP_V4_FLOW:
		*ports = BIT(SVIO_HASH_TCP4);
		return 0;
	case UDP_V4_FLOW:
		*ports = BIT(SVIO_HASH_UDP4);
		return 0;
	case IPV4_FLOW:
		return 0;
	}
	*addresses = BIT(SVIO_HASH_IP6);
	switch (flow_type) {
	case TCP_V6_FLOW:
		*ports = BIT(SVIO_HASH_TCP6);
		return 0;
	case UDP_V6_FLOW:
		*ports = BIT(SVIO_HASH_UDP6);
		return 0;
	case IPV6_FLOW:
		return 0;
	}
	return -EINVAL;
}

int svio_get_rxnfc(struct net_device *netdev, struct ethtool_rxnfc *nfc, u32 *rules)
{
	struct svio_priv *priv = netdev_priv(netdev);
	u32 ports, addresses;

	switch (nfc->cmd) {
	case ETHTOOL_GRXRINGS:
		nfc->data = priv->pairs;
		return 0;
	case ETHTOOL_GRXFH:
		if (!svio_hashes(priv) || svio_flow_types(nfc->flow_type, &ports, &addresses))
			return -EOPNOTSUPP;
		nfc->data = 0;
		if (priv->rss_types & (ports | addresses))
			nfc->data = SVIO_RXH_ADDRESSES;
		if (priv->rss_types & ports)
			nfc->data |= SVIO_RXH_PORTS;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

int svio_set_rxnfc(struct net_device *netdev, struct ethtool_rxnfc *nfc)
{
	struct svio_priv *priv = netdev_priv(netdev);
	u32 ports, addresses, old = priv->rss_types;
	int err;

	if (nfc->cmd != ETHTOOL_SRXFH || !svio_hashes(priv))
		return -EOPNOTSUPP;
	if (svio_flow_types(nfc->flow_type, &ports, &addresses))
		return -EINVAL;
	/* What has no ports, or is not hashed by them, goes by address while that type is on. */
	if (ports && nfc->data == (SVIO_RXH_ADDRESSES | SVIO_RXH_PORTS))
		priv->rss_types |= ports;
	else if (ports && nfc->data == (old & addresses ? SVIO_RXH_ADDRESSES : 0))
		priv->rss_types &= ~ports;
	else if (!ports && nfc->data == SVIO_RXH_ADDRESSES)
		priv->rss_types |= addresses;
	else if (!ports && !nfc->data)
		priv->rss_types &= ~addresses;
	else
		return -EINVAL;
	err = svio_mbox_rss(priv);
	if (err)
		priv->rss_types = old;
	return err;
}

/* ---- netdev-genl: statistics of each queue ---- */

#ifdef SVIO_HAVE_STAT_OPS
static void svio_add_rx_stats(const struct svio_rx *rx, struct netdev_queue_stats_rx *stats)
{
	u64 packets, bytes, alloc_failed;
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&rx->stats.sync);
		packets = u64_stats_read(&rx->stats.packets);
		bytes = u64_stats_read(&rx->stats.bytes);
		alloc_failed = u64_stats_read(&rx->stats.alloc_failed);
	} while (u64_stats_fetch_retry(&rx->stats.sync, start));
	stats->packets += packets;
	stats->bytes += bytes;
	stats->alloc_fail += alloc_failed;
}

static void svio_add_tx_stats(const struct svio_tx *tx, struct netdev_queue_stats_tx *stats)
{
	u64 packets, bytes, stops, wakes;
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&tx->done.sync);
		packets = u64_stats_read(&tx->done.packets);
		bytes = u64_stats_read(&tx->done.bytes);
		wakes = u64_stats_read(&tx->done.wakes);
	} while (u64_stats_fetch_retry(&tx->done.sync, start));
	do {
		start = u64_stats_fetch_begin(&tx->send.sync);
		stops = u64_stats_read(&tx->send.stops);
	} while (u64_stats_fetch_retry(&tx->send.sync, start));
	stats->packets += packets;
	stats->bytes += bytes;
	stats->stop += stops;
	stats->wake += wakes;
}

/* What has no value is all ones; these have one. */
static void svio_zero_rx_stats(struct netdev_queue_stats_rx *stats)
{
	stats->packets = 0;
	stats->bytes = 0;
	stats->alloc_fail = 0;
}

static void svio_zero_tx_stats(struct netdev_queue_stats_tx *stats)
{
	stats->packets = 0;
	stats->bytes = 0;
	stats->stop = 0;
	stats->wake = 0;
}

static void svio_get_queue_stats_rx(struct net_device *netdev, int index,
				    struct netdev_queue_stats_rx *stats)
{
	struct svio_priv *priv = netdev_priv(netdev);

	svio_zero_rx_stats(stats);
	svio_add_rx_stats(&priv->pair[index].rx, stats);
}

static void svio_get_queue_stats_tx(struct net_device *netdev, int index,
				    struct netdev_queue_stats_tx *stats)
{
	struct svio_priv *priv = netdev_priv(netdev);

	svio_zero_tx_stats(stats);
	svio_add_tx_stats(&priv->pair[index].tx, stats);
}

/* Of pairs that are not in use now. */
static void svio_get_base_stats(struct net_device *netdev, struct netdev_queue_stats_rx *rx,
				struct netdev_queue_stats_tx *tx)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int i;

	svio_zero_rx_stats(rx);
	svio_zero_tx_stats(tx);
	for (i = priv->pairs; i < priv->pairs_max; i++) {
		svio_add_rx_stats(&priv->pair[i].rx, rx);
		svio_add_tx_stats(&priv->pair[i].tx, tx);
	}
}

static const struct netdev_stat_ops svio_stat_ops = {
	.get_queue_stats_rx = svio_get_queue_stats_rx,
	.get_queue_stats_tx = svio_get_queue_stats_tx,
	.get_base_stats = svio_get_base_stats,
};
#endif

/* Before the net device is registered: all hash types, a key of this boot, an even table. */
void svio_setup_queues(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;

#ifdef SVIO_HAVE_STAT_OPS
	netdev->stat_ops = &svio_stat_ops;
#endif
	priv->rss_types = SVIO_RSS_TYPES;
	netdev_rss_key_fill(priv->rss_key, sizeof(priv->rss_key));
	svio_spread_table(priv);
	if (svio_hashes(priv)) {
		netdev->hw_features |= NETIF_F_RXHASH;
		netdev->features |= NETIF_F_RXHASH;
	}
}
