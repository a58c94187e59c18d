// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: ethtool */
#include <linux/ethtool.h>

#include "svio.h"

/* ---- statistics: the driver's own, then the device's ---- */

static const char * const svio_dev_names[] = { SVIO_STAT_NAMES };
static const char * const svio_dev_queue_names[] = { SVIO_QSTAT_NAMES };

static const char * const svio_drv_names[] = { "resets", "tx_timeouts", "event_irqs" };

/* In the order in which svio_pair_values() writes them. */
static const char * const svio_pair_names[] = {
	"irqs", "polls", "repolls",
};

static const char * const svio_tx_names[] = {
	"packets", "bytes", "wakes",
	"dropped", "linearized", "stops", "bells", "bells_suppressed", "lost",
	"xdp_sent", "xdp_full",
};

static const char * const svio_rx_names[] = {
	"packets", "bytes", "multicast", "copied", "chained", "dropped", "length_errors",
	"alloc_failed", "bells", "bells_suppressed",
	"xdp_pass", "xdp_drop", "xdp_tx", "xdp_redirect", "xdp_errors", "xdp_too_long",
};

#define SVIO_PAIR_VALUES \
	(ARRAY_SIZE(svio_pair_names) + ARRAY_SIZE(svio_tx_names) + ARRAY_SIZE(svio_rx_names))
#define SVIO_DEV_PAIR_VALUES (2 * ARRAY_SIZE(svio_dev_queue_names))

static int svio_get_sset_count(struct net_device *netdev, int sset)
{
	struct svio_priv *priv = netdev_priv(netdev);

	if (sset == ETH_SS_TEST)
		return SVIO_TESTS;
	if (sset != ETH_SS_STATS)
		return -EOPNOTSUPP;
	return ARRAY_SIZE(svio_drv_names) + ARRAY_SIZE(svio_dev_names) +
	       priv->pairs_max * (SVIO_PAIR_VALUES + SVIO_DEV_PAIR_VALUES);
}

static void svio_put_names(u8 **data, const char *prefix, const char * const *names, int count)
{
	int i;

	for (i = 0; i < count; i++)
		ethtool_sprintf(data, "%s%s", prefix, names[i]);
}

static void svio_put_queue_names(u8 **data, const char *kind, int pair,
				 const char * const *names, int count)
{
	char prefix[ETH_GSTRING_LEN];

	snprintf(prefix, sizeof(prefix), "%s%d_", kind, pair);
	svio_put_names(data, prefix, names, count);
}

static void svio_get_strings(struct net_device *netdev, u32 sset, u8 *data)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int i;

	if (sset == ETH_SS_TEST)
		memcpy(data, svio_test_names, sizeof(svio_test_names));
	if (sset != ETH_SS_STATS)
		return;
	svio_put_names(&data, "", svio_drv_names, ARRAY_SIZE(svio_drv_names));
	for (i = 0; i < priv->pairs_max; i++) {
		svio_put_queue_names(&data, "pair", i, svio_pair_names,
				     ARRAY_SIZE(svio_pair_names));
		svio_put_queue_names(&data, "tx", i, svio_tx_names, ARRAY_SIZE(svio_tx_names));
		svio_put_queue_names(&data, "rx", i, svio_rx_names, ARRAY_SIZE(svio_rx_names));
	}
	svio_put_names(&data, "dev_", svio_dev_names, ARRAY_SIZE(svio_dev_names));
	for (i = 0; i < priv->pairs_max; i++) {
		svio_put_queue_names(&data, "dev_tx", i, svio_dev_queue_names,
				     ARRAY_SIZE(svio_dev_queue_names));
		svio_put_queue_names(&data, "dev_rx", i, svio_dev_queue_names,
				     ARRAY_SIZE(svio_dev_queue_names));
	}
}

/* Copies `count` counters of one writer as they were at one time. */
static u64 *svio_put_values(u64 *data, const struct u64_stats_sync *sync,
			    const u64_stats_t *counter, int count)
{
	unsigned int start;
	int i;

	do {
		start = u64_stats_fetch_begin(sync);
		for (i = 0; i < count; i++)
			data[i] = u64_stats_read(&counter[i]);
	} while (u64_stats_fetch_retry(sync, start));
	return data + count;
}

#define svio_put_group(data, group, first, last) \
	svio_put_values(data, &(group)->sync, &(group)->first, \
			&(group)->last - &(group)->first + 1)

static u64 *svio_pair_values(u64 *data, struct svio_pair *pair)
{
	*data++ = atomic64_read(&pair->irqs);
	data = svio_put_group(data, &pair->stats, polls, repolls);
	data = svio_put_group(data, &pair->tx.done, packets, wakes);
	data = svio_put_group(data, &pair->tx.send, dropped, xdp_full);
	return svio_put_group(data, &pair->rx.stats, packets, xdp_too_long);
}

static void svio_get_ethtool_stats(struct net_device *netdev, struct ethtool_stats *stats,
				   u64 *data)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int i;

	*data++ = atomic64_read(&priv->resets);
	*data++ = atomic64_read(&priv->tx_timeouts);
	*data++ = atomic64_read(&priv->event_irqs);
	for (i = 0; i < priv->pairs_max; i++)
		data = svio_pair_values(data, &priv->pair[i]);

	/* What the device does not answer reads as 0. */
	if (svio_mbox_stats(priv, SVIO_STATS_VIF, data, NULL, SVIO_STAT_COUNT))
		memset(data, 0, SVIO_STAT_COUNT * sizeof(*data));
	data += SVIO_STAT_COUNT;
	for (i = 0; i < priv->pairs_max; i++) {
		if (svio_mbox_stats(priv, i, data, data + SVIO_QSTAT_COUNT, SVIO_QSTAT_COUNT))
			memset(data, 0, SVIO_DEV_PAIR_VALUES * sizeof(*data));
		data += SVIO_DEV_PAIR_VALUES;
	}
}

/* ---- the rest ---- */

static void svio_get_drvinfo(struct net_device *netdev, struct ethtool_drvinfo *info)
{
	struct svio_priv *priv = netdev_priv(netdev);

	strscpy(info->driver, SVIO_DRV_NAME, sizeof(info->driver));
	strscpy(info->bus_info, pci_name(priv->pdev), sizeof(info->bus_info));
	snprintf(info->fw_version, sizeof(info->fw_version), "ABI %u.%u",
		 priv->abi_version >> 16, priv->abi_version & 0xffff);
}

static void svio_get_ringparam(struct net_device *netdev, struct ethtool_ringparam *ring,
			       struct kernel_ethtool_ringparam *kernel_ring,
			       struct netlink_ext_ack *extack)
{
	struct svio_priv *priv = netdev_priv(netdev);

	ring->rx_max_pending = priv->ring_max;
	ring->tx_max_pending = priv->ring_max;
	ring->rx_pending = priv->rx_size;
	ring->tx_pending = priv->tx_size;
}

static int svio_set_ringparam(struct net_device *netdev, struct ethtool_ringparam *ring,
			      struct kernel_ethtool_ringparam *kernel_ring,
			      struct netlink_ext_ack *extack)
{
	struct svio_priv *priv = netdev_priv(netdev);
	u32 tx_size = roundup_pow_of_two(max_t(u32, ring->tx_pending, SVIO_QUEUE_MIN));
	u32 rx_size = roundup_pow_of_two(max_t(u32, ring->rx_pending, SVIO_QUEUE_MIN));
	int err;

	if (ring->rx_mini_pending || ring->rx_jumbo_pending)
		return -EINVAL;
	if (tx_size == priv->tx_size && rx_size == priv->rx_size)
		return 0;
	err = svio_reconfigure(priv, tx_size, rx_size, priv->xdp);
	if (err == -EBUSY)
		NL_SET_ERR_MSG_MOD(extack, "a reset is under way, try again");
	else if (err)
		NL_SET_ERR_MSG_MOD(extack, "the queues do not start with these sizes");
	return err;
}

static u32 svio_get_msglevel(struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);

	return priv->msg_enable;
}

static void svio_set_msglevel(struct net_device *netdev, u32 level)
{
	struct svio_priv *priv = netdev_priv(netdev);

	priv->msg_enable = level;
}

static int svio_get_link_ksettings(struct net_device *netdev, struct ethtool_link_ksettings *cmd)
{
	struct svio_priv *priv = netdev_priv(netdev);
	u32 speed = svio_rd(priv, SVIO_REG_LINK_SPEED);

	ethtool_link_ksettings_zero_link_mode(cmd, supported);
	ethtool_link_ksettings_zero_link_mode(cmd, advertising);
	cmd->base.port = PORT_OTHER;
	cmd->base.autoneg = AUTONEG_DISABLE;
	/* A wire without a rate of its own has none that could be told. */
	cmd->base.duplex = netif_carrier_ok(netdev) ? DUPLEX_FULL : DUPLEX_UNKNOWN;
	cmd->base.speed = netif_carrier_ok(netdev) && speed && speed <= INT_MAX ? speed :
			  SPEED_UNKNOWN;
	return 0;
}

const struct ethtool_ops svio_ethtool_ops = {
	.supported_coalesce_params = ETHTOOL_COALESCE_USECS | ETHTOOL_COALESCE_MAX_FRAMES |
				     ETHTOOL_COALESCE_USE_ADAPTIVE_RX,
	.get_coalesce = svio_get_coalesce,
	.set_coalesce = svio_set_coalesce,
	.get_regs_len = svio_get_regs_len,
	.get_regs = svio_get_regs,
	.get_msglevel = svio_get_msglevel,
	.set_msglevel = svio_set_msglevel,
	.self_test = svio_self_test,
	.get_drvinfo = svio_get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = svio_get_link_ksettings,
	.get_ringparam = svio_get_ringparam,
	.set_ringparam = svio_set_ringparam,
	.get_sset_count = svio_get_sset_count,
	.get_strings = svio_get_strings,
	.get_ethtool_stats = svio_get_ethtool_stats,
	.get_ts_info = ethtool_op_get_ts_info,
	.get_channels = svio_get_channels,
	.set_channels = svio_set_channels,
	.get_rxfh_indir_size = svio_get_rxfh_indir_size,
	.get_rxfh_key_size = svio_get_rxfh_key_size,
	.get_rxfh = svio_get_rxfh,
	.set_rxfh = svio_set_rxfh,
	.get_rxnfc = svio_get_rxnfc,
	.set_rxnfc = svio_set_rxnfc,
};
