// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: moderation of signals (SPEC 5.5), ethtool -c and -C */
#include "svio.h"

#define SVIO_MODERATION_USECS(v) ((v) & 0xffff)
#define SVIO_MODERATION_FRAMES(v) ((v) >> 16)

static u32 svio_moderation(u32 usecs, u32 frames)
{
	/* Held back for no time at all is not held back. */
	return usecs ? min_t(u32, frames, U16_MAX) << 16 | min_t(u32, usecs, U16_MAX) : 0;
}

static void svio_write_moderation(struct svio_priv *priv, int pair, u32 dir, u32 value)
{
	svio_wr(priv, SVIO_QUEUE_REG(pair, dir, SVIO_QUEUE_MODERATION), value);
}

/* ---- adaptive: the kernel's DIM chooses from its profiles ---- */

static u32 svio_dim_value(const struct dim *dim)
{
	struct dim_cq_moder moder = net_dim_get_rx_moderation(dim->mode, dim->profile_ix);

	return svio_moderation(moder.usec, moder.pkts);
}

/* Without RTNL: svio_dim_stop() waits for it before the queue goes. */
static void svio_dim_work(struct work_struct *work)
{
	struct dim *dim = container_of(work, struct dim, work);
	struct svio_rx *rx = container_of(dim, struct svio_rx, dim);

	svio_write_moderation(rx->priv, rx->index, SVIO_RECEIVE, svio_dim_value(dim));
	dim->state = DIM_START_MEASURE;
}

void svio_dim_init(struct svio_rx *rx)
{
	INIT_WORK(&rx->dim.work, svio_dim_work);
}

/* The queue is about to start: what its moderation register is to hold. */
u32 svio_dim_start(struct svio_rx *rx)
{
	if (!rx->priv->rx_adaptive)
		return rx->priv->rx_moderation;
	rx->dim.mode = DIM_CQ_PERIOD_MODE_START_FROM_EQE;
	rx->dim.state = DIM_START_MEASURE;
	rx->dim.profile_ix = 0;
	return svio_dim_value(&rx->dim);
}

/* NAPI is disabled. */
void svio_dim_stop(struct svio_rx *rx)
{
	cancel_work_sync(&rx->dim.work);
}

/* A poll that ends: NAPI alone writes these counters. */
void svio_dim_poll(struct svio_pair *pair)
{
	struct svio_rx *rx = &pair->rx;
	struct dim_sample sample = {};

	dim_update_sample(atomic64_read(&pair->irqs), u64_stats_read(&rx->stats.packets),
			  u64_stats_read(&rx->stats.bytes), &sample);
	net_dim(&rx->dim, sample);
}

/* ---- ethtool ---- */

int svio_get_coalesce(struct net_device *netdev, struct ethtool_coalesce *coal,
		      struct kernel_ethtool_coalesce *kernel_coal,
		      struct netlink_ext_ack *extack)
{
	struct svio_priv *priv = netdev_priv(netdev);
	u32 rx = priv->rx_moderation; /* what holds when it is not adaptive */

	if (!(priv->features & SVIO_F_MODERATION))
		return -EOPNOTSUPP;
	coal->use_adaptive_rx_coalesce = priv->rx_adaptive;
	coal->rx_coalesce_usecs = SVIO_MODERATION_USECS(rx);
	coal->rx_max_coalesced_frames = SVIO_MODERATION_FRAMES(rx);
	coal->tx_coalesce_usecs = SVIO_MODERATION_USECS(priv->tx_moderation);
	coal->tx_max_coalesced_frames = SVIO_MODERATION_FRAMES(priv->tx_moderation);
	return 0;
}

static int svio_check_coalesce(u32 usecs, u32 frames, struct netlink_ext_ack *extack)
{
	if (usecs > U16_MAX || frames > U16_MAX) {
		NL_SET_ERR_MSG_MOD(extack, "microseconds and frames go up to 65535");
		return -ERANGE;
	}
	/* One frame is the next one: as good as off. */
	if (frames > 1 && !usecs) {
		NL_SET_ERR_MSG_MOD(extack, "a number of frames needs a time in microseconds");
		return -EINVAL;
	}
	return 0;
}

/* From fixed to adaptive moderation or back, or to other figures. */
static void svio_restart_moderation(struct svio_pair *pair)
{
	/* NAPI off, so that DIM sees no half of this. */
	napi_disable(&pair->napi);
	svio_dim_stop(&pair->rx);
	svio_write_moderation(pair->priv, pair->index, SVIO_RECEIVE, svio_dim_start(&pair->rx));
	napi_enable(&pair->napi);
	/* A signal that came before napi_enable() was lost. */
	svio_napi_kick(pair);
}

int svio_set_coalesce(struct net_device *netdev, struct ethtool_coalesce *coal,
		      struct kernel_ethtool_coalesce *kernel_coal,
		      struct netlink_ext_ack *extack)
{
	u32 rx_usecs = coal->rx_coalesce_usecs, rx_frames = coal->rx_max_coalesced_frames;
	struct svio_priv *priv = netdev_priv(netdev);
	bool adaptive = coal->use_adaptive_rx_coalesce;
	bool restart;
	int i, err;

	if (!(priv->features & SVIO_F_MODERATION))
		return -EOPNOTSUPP;
	err = svio_check_coalesce(rx_usecs, rx_frames, extack);
	if (!err)
		err = svio_check_coalesce(coal->tx_coalesce_usecs, coal->tx_max_coalesced_frames,
					  extack);
	if (err)
		return err;
	priv->tx_moderation = svio_moderation(coal->tx_coalesce_usecs,
					      coal->tx_max_coalesced_frames);
	priv->rx_moderation = svio_moderation(rx_usecs, rx_frames);
	restart = !adaptive || !priv->rx_adaptive;
	WRITE_ONCE(priv->rx_adaptive, adaptive);
	if (!test_bit(SVIO_UP, &priv->state))
		return 0;
	for (i = 0; i < priv->pairs; i++) {
		svio_write_moderation(priv, i, SVIO_SEND, priv->tx_moderation);
		if (restart)
			svio_restart_moderation(&priv->pair[i]);
	}
	return 0;
}
