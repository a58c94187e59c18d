// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: self test, ethtool -t. Under RTNL. */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/random.h>

#include "svio.h"

#define SVIO_TEST_TIMEOUT (2 * HZ)
#define SVIO_TEST_PROTO 0x88b5 /* local experimental ethertype 1 */
#define SVIO_TEST_HEADER (ETH_HLEN + sizeof(__be32))

enum { SVIO_TEST_REGS, SVIO_TEST_IRQ, SVIO_TEST_LOOP, SVIO_TEST_LINK };

const char svio_test_names[SVIO_TESTS][ETH_GSTRING_LEN] = {
	[SVIO_TEST_REGS] = "registers  (offline)",
	[SVIO_TEST_IRQ] = "interrupts (on/offline)",
	[SVIO_TEST_LOOP] = "loopback   (on/offline)",
	[SVIO_TEST_LINK] = "link       (on/offline)",
};

/* What the frames on their way are, for NAPI. */
struct svio_selftest {
	u32 cookie;
	atomic_t missing; /* frames that have not come back whole */
	struct completion done;
};

/* ---- registers: each bit of what a disabled queue keeps ---- */

static int svio_test_reg(struct svio_priv *priv, u32 reg, u32 mask)
{
	static const u32 patterns[] = { 0x00000000, 0xffffffff, 0x5a5a5a5a, 0xa5a5a5a5 };
	u32 old = svio_rd(priv, reg);
	int i, err = 0;

	for (i = 0; i < ARRAY_SIZE(patterns) && !err; i++) {
		svio_wr(priv, reg, patterns[i] & mask);
		if (svio_rd(priv, reg) != (patterns[i] & mask)) {
			netif_err(priv, hw, priv->netdev, "register %#06x does not keep %#010x\n",
				  reg, patterns[i] & mask);
			err = -EIO;
		}
	}
	svio_wr(priv, reg, old);
	return err;
}

static int svio_test_regs(struct svio_priv *priv)
{
	static const struct {
		u32 reg, mask;
	} regs[] = {
		{ SVIO_QUEUE_BASE_LO, U32_MAX },
		{ SVIO_QUEUE_BASE_HI, U32_MAX },
		{ SVIO_QUEUE_EVENT_LO, U32_MAX },
		{ SVIO_QUEUE_EVENT_HI, U32_MAX },
		{ SVIO_QUEUE_SIZE, U32_MAX },
		{ SVIO_QUEUE_VECTOR, 0x7 },
		{ SVIO_QUEUE_MODERATION, U32_MAX },
	};
	int pair, dir, i, err;

	if (svio_hw_identify(priv))
		return -EIO;
	for (pair = 0; pair < priv->pairs; pair++) {
		for (dir = SVIO_SEND; dir <= SVIO_RECEIVE; dir++) {
			for (i = 0; i < ARRAY_SIZE(regs); i++) {
				err = svio_test_reg(priv, SVIO_QUEUE_REG(pair, dir, regs[i].reg),
						    regs[i].mask);
				if (err)
					return err;
			}
		}
	}
	return 0;
}

/* With the queues down, and up again afterwards as they were before. */
static int svio_test_regs_offline(struct svio_priv *priv)
{
	bool running = test_bit(SVIO_UP, &priv->state);
	int err;

	if (running)
		svio_down(priv);
	err = svio_test_regs(priv);
	if (running && svio_up(priv)) {
		svio_request_reset(priv);
		return -EIO;
	}
	return err;
}

/* ---- interrupts: the device raises each vector that we listen to ---- */

static int svio_test_vector(struct svio_priv *priv, u32 vector, const atomic64_t *count)
{
	unsigned long end = jiffies + SVIO_TEST_TIMEOUT;
	s64 before = atomic64_read(count);
	int err;

	err = svio_mbox_test_signal(priv, vector);
	if (err)
		return err;
	while (atomic64_read(count) == before) {
		if (time_after(jiffies, end)) {
			netif_err(priv, hw, priv->netdev, "vector %u raises no interrupt\n",
				  vector);
			return -ETIMEDOUT;
		}
		usleep_range(100, 500);
	}
	return 0;
}

static int svio_test_irqs(struct svio_priv *priv)
{
	int i, err;

	err = svio_test_vector(priv, 0, &priv->event_irqs);
	for (i = 0; i < priv->pairs && !err; i++) {
		if (!test_bit(SVIO_UP, &priv->state))
			return -ENETDOWN;
		err = svio_test_vector(priv, i + 1, &priv->pair[i].irqs);
	}
	return err;
}

/* ---- loopback: frames through the board, and back with each byte ---- */

static u8 svio_test_byte(u32 cookie, u32 at)
{
	return (cookie >> (at & 3) * 8) + at * 7 + (at >> 8);
}

static struct sk_buff *svio_test_skb(struct svio_priv *priv, u32 len, u32 cookie)
{
	struct net_device *netdev = priv->netdev;
	struct sk_buff *skb = netdev_alloc_skb(netdev, len);
	struct ethhdr *eth;
	u32 at;
	u8 *data;

	if (!skb)
		return NULL;
	data = skb_put(skb, len);
	eth = (struct ethhdr *)data;
	ether_addr_copy(eth->h_dest, netdev->dev_addr);
	ether_addr_copy(eth->h_source, netdev->dev_addr);
	eth->h_proto = htons(SVIO_TEST_PROTO);
	put_unaligned_be32(len, data + ETH_HLEN);
	for (at = SVIO_TEST_HEADER; at < len; at++)
		data[at] = svio_test_byte(cookie, at);
	return skb;
}

static int svio_test_send(struct svio_priv *priv, int pair, u32 len, u32 cookie)
{
	struct svio_tx *tx = &priv->pair[pair].tx;
	struct sk_buff *skb = svio_test_skb(priv, len, cookie);
	netdev_tx_t ret = NETDEV_TX_BUSY;

	if (!skb)
		return -ENOMEM;
	skb_set_queue_mapping(skb, pair);
	local_bh_disable();
	__netif_tx_lock(tx->txq, smp_processor_id());
	if (!netif_xmit_frozen_or_drv_stopped(tx->txq)) {
		tx->head_flags = SVIO_ENTRY_LOOP;
		ret = svio_start_xmit(skb, priv->netdev);
		tx->head_flags = 0;
		svio_tx_kick(tx);
	}
	__netif_tx_unlock(tx->txq);
	local_bh_enable();
	if (ret == NETDEV_TX_OK)
		return 0;
	kfree_skb(skb);
	return -EBUSY;
}

static bool svio_test_good(struct svio_rx *rx, int count, u32 bytes, u32 cookie)
{
	const struct net_device *netdev = rx->priv->netdev;
	const struct svio_rx_buf *buf;
	const u8 *data;
	u32 at = 0, i;
	int n;

	for (n = 0; n < count; n++) {
		buf = svio_rx_buf(rx, rx->next + n);
		data = svio_rx_sync(rx, buf);
		if (!n && (buf->len < SVIO_TEST_HEADER ||
			   !ether_addr_equal_unaligned(data, netdev->dev_addr) ||
			   get_unaligned_be16(data + 2 * ETH_ALEN) != SVIO_TEST_PROTO ||
			   get_unaligned_be32(data + ETH_HLEN) != bytes))
			return false;
		for (i = n ? 0 : SVIO_TEST_HEADER; i < buf->len; i++)
			if (data[i] != svio_test_byte(cookie, at + i))
				return false;
		at += buf->len;
	}
	return true;
}

/* NAPI, while a test waits: true if the message at the head is one of its frames. */
bool svio_selftest_take(struct svio_rx *rx, int count, u32 bytes)
{
	/* Pairs with the release in svio_test_loop(). */
	struct svio_selftest *test = smp_load_acquire(&rx->priv->test);
	u32 flags = le32_to_cpu(READ_ONCE(svio_rx_entry(rx, rx->next)->flags));

	if (!(flags & SVIO_ENTRY_LOOP))
		return false;
	if (test && svio_test_good(rx, count, bytes, test->cookie) &&
	    atomic_dec_and_test(&test->missing))
		complete(&test->done);
	return true;
}

static int svio_test_pair(struct svio_priv *priv, int pair, struct svio_selftest *test)
{
	const u32 lens[] = { ETH_ZLEN, 257, priv->netdev->mtu + ETH_HLEN };
	int i, err;

	test->cookie = get_random_u32();
	atomic_set(&test->missing, ARRAY_SIZE(lens));
	reinit_completion(&test->done);
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		err = svio_test_send(priv, pair, max_t(u32, lens[i], ETH_ZLEN), test->cookie);
		if (err)
			return err;
	}
	if (wait_for_completion_timeout(&test->done, SVIO_TEST_TIMEOUT))
		return 0;
	netif_err(priv, hw, priv->netdev, "pair %d: %d frames of %zu did not come back\n", pair,
		  atomic_read(&test->missing), ARRAY_SIZE(lens));
	return -EIO;
}

static int svio_test_loop(struct svio_priv *priv)
{
	struct svio_selftest test;
	int i, err = 0;

	if (!(priv->features & SVIO_F_LOOPBACK))
		return -EOPNOTSUPP;
	if (!test_bit(SVIO_UP, &priv->state))
		return -ENETDOWN;
	init_completion(&test.done);
	/* NAPI sees a whole test or none. */
	smp_store_release(&priv->test, &test);
	set_bit(SVIO_TESTING, &priv->state);
	for (i = 0; i < priv->pairs && !err; i++)
		err = svio_test_pair(priv, i, &test);
	/* A frame that is late is still taken for one of a test, whose memory has gone. */
	WRITE_ONCE(priv->test, NULL);
	synchronize_net();
	if (!err)
		clear_bit(SVIO_TESTING, &priv->state);
	return err;
}

/* ---- ethtool ---- */

void svio_self_test(struct net_device *netdev, struct ethtool_test *etest, u64 *data)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int result[SVIO_TESTS] = {};
	int i;

	if (etest->flags & ETH_TEST_FL_OFFLINE)
		result[SVIO_TEST_REGS] = svio_test_regs_offline(priv);
	result[SVIO_TEST_IRQ] = svio_test_irqs(priv);
	result[SVIO_TEST_LOOP] = svio_test_loop(priv);
	if (!(svio_rd(priv, SVIO_REG_STATUS) & SVIO_STATUS_LINK_UP))
		result[SVIO_TEST_LINK] = -ENOLINK;
	for (i = 0; i < SVIO_TESTS; i++) {
		data[i] = -result[i];
		if (result[i])
			etest->flags |= ETH_TEST_FL_FAILED;
	}
}
