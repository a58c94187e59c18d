// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: mailbox commands (SPEC 7) */
#include "svio.h"

#define SVIO_MBOX_POLL_US 20
#define SVIO_MC_BATCH 6 /* addresses in one command */

union svio_mbox_words {
	struct svio_command cmd;
	__le32 word[sizeof(struct svio_command) / sizeof(__le32)];
};

int svio_status_errno(u16 status)
{
	switch (status) {
	case SVIO_ST_OK:
	case SVIO_ST_TRIMMED:
		return 0;
	case SVIO_ST_UNSUPPORTED:
		return -EOPNOTSUPP;
	case SVIO_ST_INVALID:
		return -EINVAL;
	case SVIO_ST_DENIED:
		return -EPERM;
	case SVIO_ST_NOT_FOUND:
		return -ENOENT;
	case SVIO_ST_EXISTS:
		return -EEXIST;
	case SVIO_ST_NO_SPACE:
		return -ENOSPC;
	case SVIO_ST_DMA:
		return -EFAULT;
	case SVIO_ST_STATE:
		return -EBUSY;
	default:
		return -EIO;
	}
}

/* Runs m->cmd and leaves the answer there. Called with mbox_lock held. */
static int svio_mbox_run(struct svio_priv *priv, union svio_mbox_words *m)
{
	u16 tag = ++priv->mbox_tag;
	u16 opcode = le16_to_cpu(m->cmd.opcode);
	u32 state;
	int i, err;

	lockdep_assert_held(&priv->mbox_lock);
	if (test_bit(SVIO_DETACHED, &priv->state) || test_bit(SVIO_GONE, &priv->state))
		return -ENODEV;

	m->cmd.tag = cpu_to_le16(tag);
	m->cmd.slot = cpu_to_le32(SVIO_SLOT_SELF);
	for (i = 0; i < ARRAY_SIZE(m->word); i++)
		svio_wr(priv, SVIO_REG_MAILBOX + i * 4, le32_to_cpu(m->word[i]));
	svio_wr(priv, SVIO_REG_MAILBOX_BELL, 1);

	err = readl_poll_timeout(priv->regs + SVIO_REG_MAILBOX_STATE, state,
				 state == SVIO_MAILBOX_DONE || state == U32_MAX,
				 SVIO_MBOX_POLL_US, SVIO_MBOX_TIMEOUT_US);
	if (state == U32_MAX) {
		/* Pulled out: the service task sees to the rest. */
		set_bit(SVIO_GONE, &priv->state);
		mod_delayed_work(system_wq, &priv->service, 0);
		return -ENODEV;
	}
	if (err) {
		netdev_err(priv->netdev, "mailbox command %#06x timed out, state %#x\n",
			   opcode, state);
		/* It may still write into the data buffer: only a reset makes that stop. */
		svio_request_reset(priv);
		return err;
	}

	for (i = 0; i < ARRAY_SIZE(m->word); i++)
		m->word[i] = cpu_to_le32(svio_rd(priv, SVIO_REG_MAILBOX + i * 4));
	if (le16_to_cpu(m->cmd.tag) != tag) {
		netdev_err(priv->netdev, "mailbox command %#06x: tag %#x for %#x\n",
			   opcode, le16_to_cpu(m->cmd.tag), tag);
		return -EIO;
	}
	return svio_status_errno(le16_to_cpu(m->cmd.status));
}

/* Runs a command that neither takes nor returns data. */
static int svio_mbox_simple(struct svio_priv *priv, union svio_mbox_words *m)
{
	int err;

	mutex_lock(&priv->mbox_lock);
	err = svio_mbox_run(priv, m);
	mutex_unlock(&priv->mbox_lock);
	return err;
}

/* Runs a command that returns data in mbox_data. Returns the bytes or an error. */
static int svio_mbox_data(struct svio_priv *priv, union svio_mbox_words *m)
{
	u32 len;
	int err;

	memset(priv->mbox_data, 0, SVIO_MBOX_DATA);
	m->cmd.data_addr = cpu_to_le64(priv->mbox_data_dma);
	m->cmd.data_len = cpu_to_le32(SVIO_MBOX_DATA);
	err = svio_mbox_run(priv, m);
	if (err)
		return err;
	len = le32_to_cpu(m->cmd.data_len);
	return len <= SVIO_MBOX_DATA ? len : -EIO;
}

/* `features`: those of SVIO_F_RX_OFFLOADS that the device is to use. */
int svio_mbox_rx_offloads(struct svio_priv *priv, u64 features)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_RX_OFFLOADS) };

	m.cmd.u.rx_offloads.features = cpu_to_le64(features);
	return svio_mbox_simple(priv, &m);
}

int svio_mbox_set_mac(struct svio_priv *priv, const u8 *mac)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_SET_MAC) };

	ether_addr_copy(m.cmd.u.set_mac.mac, mac);
	return svio_mbox_simple(priv, &m);
}

int svio_mbox_set_mtu(struct svio_priv *priv, u32 mtu)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_SET_MTU) };

	m.cmd.u.set_mtu.mtu = cpu_to_le32(mtu);
	return svio_mbox_simple(priv, &m);
}

int svio_mbox_queue_pairs(struct svio_priv *priv, u32 count)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_QUEUE_PAIRS) };

	m.cmd.u.queue_pairs.count = cpu_to_le32(count);
	return svio_mbox_simple(priv, &m);
}

int svio_mbox_test_signal(struct svio_priv *priv, u32 vector)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_TEST_SIGNAL) };

	m.cmd.u.test_signal.vector = cpu_to_le32(vector);
	return svio_mbox_simple(priv, &m);
}

/* Key, table and hash types, as they are in `priv`. */
int svio_mbox_rss(struct svio_priv *priv)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_RSS) };
	u8 *data = priv->mbox_data;
	int err;

	m.cmd.u.rss.hash_types = cpu_to_le32(priv->rss_types);
	m.cmd.u.rss.key_len = cpu_to_le32(sizeof(priv->rss_key));
	m.cmd.u.rss.table_len = cpu_to_le32(sizeof(priv->rss_table));
	m.cmd.data_addr = cpu_to_le64(priv->mbox_data_dma);
	m.cmd.data_len = cpu_to_le32(sizeof(priv->rss_key) + sizeof(priv->rss_table));
	mutex_lock(&priv->mbox_lock);
	memcpy(data, priv->rss_key, sizeof(priv->rss_key));
	memcpy(data + sizeof(priv->rss_key), priv->rss_table, sizeof(priv->rss_table));
	/* writel() of the command orders these stores before the device's reads. */
	err = svio_mbox_run(priv, &m);
	mutex_unlock(&priv->mbox_lock);
	return err;
}

int svio_mbox_rx_mode(struct svio_priv *priv, u32 flags)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_RX_MODE) };

	m.cmd.u.rx_mode.flags = cpu_to_le32(flags);
	return svio_mbox_simple(priv, &m);
}

/* Makes `count` addresses the whole filter. */
int svio_mbox_multicast(struct svio_priv *priv, const u8 *mac, int count)
{
	u8 op = SVIO_MC_CLEAR;
	int i, n, err = 0;

	do {
		union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_MULTICAST) };

		n = min(count, SVIO_MC_BATCH);
		m.cmd.u.multicast.op = op;
		m.cmd.u.multicast.count = n;
		for (i = 0; i < n; i++)
			ether_addr_copy(m.cmd.u.multicast.mac[i], mac + i * ETH_ALEN);
		err = svio_mbox_simple(priv, &m);
		op = SVIO_MC_ADD;
		mac += n * ETH_ALEN;
		count -= n;
	} while (!err && count);
	return err;
}

/* Asks for rates and a weight, and tells which were granted. */
int svio_mbox_qos(struct svio_priv *priv, struct svio_qos *qos)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_QOS_REQUEST) };
	int err;

	m.cmd.u.qos.min_mbps = cpu_to_le32(qos->min_mbps);
	m.cmd.u.qos.max_mbps = cpu_to_le32(qos->max_mbps);
	m.cmd.u.qos.weight = cpu_to_le32(qos->weight);
	err = svio_mbox_simple(priv, &m);
	if (err)
		return err;
	qos->min_mbps = le32_to_cpu(m.cmd.u.qos.min_mbps);
	qos->max_mbps = le32_to_cpu(m.cmd.u.qos.max_mbps);
	qos->weight = le32_to_cpu(m.cmd.u.qos.weight);
	return 0;
}

int svio_mbox_identify(struct svio_priv *priv, struct svio_vif_info *info)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_IDENTIFY) };
	int len;

	mutex_lock(&priv->mbox_lock);
	len = svio_mbox_data(priv, &m);
	if (len >= (int)sizeof(*info))
		memcpy(info, priv->mbox_data, sizeof(*info));
	mutex_unlock(&priv->mbox_lock);
	if (len < 0)
		return len;
	return len >= (int)sizeof(*info) ? 0 : -EIO;
}

/*
 * Counters of the VIF (pair = SVIO_STATS_VIF, `receive` NULL) or of a pair.
 * A newer device has more of them, so a pair's receive half is found from the
 * length that came back. What the device does not have stays 0.
 */
int svio_mbox_stats(struct svio_priv *priv, u32 pair, u64 *send, u64 *receive, int max)
{
	union svio_mbox_words m = { .cmd.opcode = cpu_to_le16(SVIO_OP_STATS) };
	const __le64 *counter = priv->mbox_data;
	int i, len, count;

	m.cmd.u.stats.pair = cpu_to_le32(pair);
	mutex_lock(&priv->mbox_lock);
	len = svio_mbox_data(priv, &m);
	count = len < 0 ? 0 : len / (int)sizeof(*counter);
	if (receive)
		count /= 2;
	for (i = 0; i < max; i++) {
		send[i] = i < count ? le64_to_cpu(counter[i]) : 0;
		if (receive)
			receive[i] = i < count ? le64_to_cpu(counter[count + i]) : 0;
	}
	mutex_unlock(&priv->mbox_lock);
	return len < 0 ? len : 0;
}
