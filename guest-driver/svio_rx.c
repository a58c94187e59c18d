// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: the receive queue (SPEC 5.4) */
#include <linux/prefetch.h>
#include <net/busy_poll.h>

#include "svio.h"

struct svio_rx_buf *svio_rx_buf(const struct svio_rx *rx, u32 position)
{
	return &rx->buf[position & (rx->ring.size - 1)];
}

struct svio_entry *svio_rx_entry(const struct svio_rx *rx, u32 position)
{
	return &rx->ring.entry[position & (rx->ring.size - 1)];
}

static u32 svio_rx_room(const struct svio_rx *rx, const struct svio_rx_buf *buf)
{
	return buf->truesize - rx->headroom - SVIO_RX_TAILROOM;
}

/* ---- posting buffers ---- */

/*
 * Two buffers share a page while a whole frame fits half of it. For XDP each has
 * its own, and where segments may come unsplit.
 */
static u32 svio_rx_truesize(const struct svio_rx *rx)
{
	u32 frame = READ_ONCE(rx->priv->netdev->mtu) + ETH_HLEN + 2 * VLAN_HLEN;

	if (!svio_rx_xdp(rx) && !READ_ONCE(rx->priv->rx_large) &&
	    frame + rx->headroom + SVIO_RX_TAILROOM <= PAGE_SIZE / 2)
		return PAGE_SIZE / 2;
	return PAGE_SIZE;
}

/* Fills the entry at a position but does not hand it over. */
static bool svio_rx_prepare(struct svio_rx *rx, u32 position, u32 truesize)
{
	struct svio_rx_buf *buf = svio_rx_buf(rx, position);
	struct svio_entry body = {};

	buf->page = page_pool_dev_alloc_frag(rx->pool, &buf->offset, truesize);
	if (unlikely(!buf->page))
		return false;
	buf->truesize = truesize;
	body.addr = cpu_to_le64(page_pool_get_dma_addr(buf->page) + buf->offset +
				rx->headroom);
	body.len = cpu_to_le32(svio_rx_room(rx, buf));
	/* `flags` keeps last lap's value: on this lap that means "not posted". */
	memcpy(svio_rx_entry(rx, position), &body, offsetof(struct svio_entry, flags));
	return true;
}

static void svio_rx_publish(struct svio_rx *rx, u32 count)
{
	u32 flags;

	/* The device must not see an entry as posted before its address. */
	dma_wmb();
	while (count--) {
		flags = svio_lap(rx->post, rx->ring.size) ? SVIO_ENTRY_POSTED : SVIO_ENTRY_DONE;
		WRITE_ONCE(svio_rx_entry(rx, rx->post)->flags, cpu_to_le32(flags));
		rx->post++;
	}
}

/* Called by NAPI, or while it is disabled. */
void svio_rx_fill(struct svio_rx *rx)
{
	u32 want = rx->ring.size - (rx->post - rx->next);
	u32 truesize = svio_rx_truesize(rx);
	u32 from = rx->post;
	u32 batch, got;

	while (want) {
		batch = min_t(u32, want, SVIO_RX_BATCH);
		for (got = 0; got < batch; got++)
			if (!svio_rx_prepare(rx, rx->post + got, truesize))
				break;
		svio_rx_publish(rx, got);
		want -= got;
		if (unlikely(got < batch)) {
			/* An empty queue raises no interrupt that would try again. */
			svio_count(&rx->stats.sync, &rx->stats.alloc_failed);
			schedule_delayed_work(&rx->priv->refill, SVIO_RX_RETRY);
			break;
		}
	}
	if (rx->post == from)
		return;
	if (svio_bell(&rx->ring, rx->bell, from, rx->post))
		svio_count(&rx->stats.sync, &rx->stats.bells);
	else
		svio_count(&rx->stats.sync, &rx->stats.bells_suppressed);
}

void svio_rx_purge(struct svio_rx *rx)
{
	struct svio_rx_buf *buf;

	for (; rx->next != rx->post; rx->next++) {
		buf = svio_rx_buf(rx, rx->next);
		page_pool_put_full_page(rx->pool, buf->page, false);
		buf->page = NULL;
	}
}

/* ---- taking messages ---- */

static bool svio_rx_is_done(const struct svio_rx *rx, u32 position, u32 flags)
{
	return !!(flags & SVIO_ENTRY_DONE) == svio_lap(position, rx->ring.size);
}

bool svio_rx_ready(const struct svio_rx *rx)
{
	u32 flags = le32_to_cpu(READ_ONCE(svio_rx_entry(rx, rx->next)->flags));

	return !rx->broken && svio_rx_is_done(rx, rx->next, flags);
}

/*
 * The entries and bytes of the message at the head, each entry checked once and
 * its length kept. Negative if the device broke the contract.
 */
static int svio_rx_measure(struct svio_rx *rx, u32 *bytes)
{
	struct svio_rx_buf *buf;
	struct svio_entry *entry;
	u32 position, flags;
	int n;

	*bytes = 0;
	for (n = 0; n < SVIO_CHAIN_MAX; n++) {
		position = rx->next + n;
		if (position == rx->post)
			return -EPROTO;
		entry = svio_rx_entry(rx, position);
		buf = svio_rx_buf(rx, position);
		flags = le32_to_cpu(READ_ONCE(entry->flags));
		buf->len = le32_to_cpu(READ_ONCE(entry->len));
		if (!svio_rx_is_done(rx, position, flags) || !buf->len ||
		    buf->len > svio_rx_room(rx, buf))
			return -EPROTO;
		*bytes += buf->len;
		if (!(flags & SVIO_ENTRY_MORE))
			return n + 1;
	}
	return -EPROTO;
}

void *svio_rx_sync(struct svio_rx *rx, const struct svio_rx_buf *buf)
{
	u32 offset = buf->offset + rx->headroom;

	dma_sync_single_range_for_cpu(&rx->priv->pdev->dev, page_pool_get_dma_addr(buf->page),
				      offset, buf->len, DMA_FROM_DEVICE);
	return page_address(buf->page) + offset;
}

static struct sk_buff *svio_rx_copy(struct svio_rx *rx, const struct svio_rx_buf *buf)
{
	const void *data = svio_rx_sync(rx, buf);
	struct sk_buff *skb = napi_alloc_skb(rx->napi, buf->len);

	if (unlikely(!skb))
		return NULL;
	skb_put_data(skb, data, buf->len);
	svio_count(&rx->stats.sync, &rx->stats.copied);
	return skb;
}

/* The pages go over to the skb; those that stay in rx->buf are still ours. */
static struct sk_buff *svio_rx_build(struct svio_rx *rx, int count)
{
	struct svio_rx_buf *buf = svio_rx_buf(rx, rx->next);
	void *data = svio_rx_sync(rx, buf);
	struct sk_buff *skb;
	int i;

	net_prefetch(data);
	skb = napi_build_skb(data - rx->headroom, buf->truesize);
	if (unlikely(!skb))
		return NULL;
	skb_mark_for_recycle(skb);
	skb_reserve(skb, rx->headroom);
	skb_put(skb, buf->len);
	buf->page = NULL;
	for (i = 1; i < count; i++) {
		buf = svio_rx_buf(rx, rx->next + i);
		svio_rx_sync(rx, buf);
		skb_add_rx_frag(skb, i - 1, buf->page, buf->offset + rx->headroom,
				buf->len, buf->truesize);
		buf->page = NULL;
	}
	return skb;
}

static void svio_rx_set_hash(const struct svio_rx *rx, const struct svio_entry *head, u32 flags,
			     struct sk_buff *skb)
{
	u8 type = READ_ONCE(head->hash_type);

	if (!(flags & SVIO_ENTRY_HASH) || !(rx->priv->netdev->features & NETIF_F_RXHASH))
		return;
	skb_set_hash(skb, le32_to_cpu(READ_ONCE(head->hash)),
		     type == SVIO_HASH_IP4 || type == SVIO_HASH_IP6 ? PKT_HASH_TYPE_L3 :
								      PKT_HASH_TYPE_L4);
}

/* Tells the stack what the head of the message says. Returns NULL if that cannot be. */
static struct sk_buff *svio_rx_describe(struct svio_rx *rx, struct sk_buff *skb)
{
	const struct svio_entry *head = svio_rx_entry(rx, rx->next);
	u32 flags = le32_to_cpu(READ_ONCE(head->flags));

	svio_rx_set_hash(rx, head, flags, skb);
	/* A program may have changed it, and has no offloads. */
	if (svio_rx_xdp(rx) || likely(svio_rx_offload(head, flags, skb)))
		return skb;
	dev_kfree_skb_any(skb);
	svio_count(&rx->stats.sync, &rx->stats.length_errors);
	return NULL;
}

static void svio_rx_consume(struct svio_rx *rx, int count)
{
	struct svio_rx_buf *buf;

	while (count--) {
		buf = svio_rx_buf(rx, rx->next++);
		if (!buf->page)
			continue;
		page_pool_recycle_direct(rx->pool, buf->page);
		buf->page = NULL;
	}
}

/*
 * A short frame that is alone, as in a conversation: there is nothing to merge it
 * with, and GRO would be a detour of a twentieth of all that the guest does for a
 * round trip. Only the first of a poll can be, so none overtakes another.
 */
static bool svio_rx_alone(const struct svio_rx *rx, u32 bytes, bool first)
{
	return first && bytes <= SVIO_RX_COPYBREAK && !svio_rx_ready(rx) &&
	       svio_gro_idle(rx->napi);
}

/* The message is consumed: rx->next is after it. */
static void svio_rx_deliver(struct svio_rx *rx, struct sk_buff *skb, int count, u32 bytes,
			    bool first)
{
	skb->protocol = eth_type_trans(skb, rx->priv->netdev);
	skb_record_rx_queue(skb, rx->index);

	u64_stats_update_begin(&rx->stats.sync);
	u64_stats_inc(&rx->stats.packets);
	u64_stats_add(&rx->stats.bytes, bytes);
	if (skb->pkt_type == PACKET_MULTICAST)
		u64_stats_inc(&rx->stats.multicast);
	if (count > 1)
		u64_stats_inc(&rx->stats.chained);
	u64_stats_update_end(&rx->stats.sync);

	if (svio_rx_alone(rx, bytes, first)) {
		skb_mark_napi_id(skb, rx->napi);
		netif_receive_skb(skb);
	} else {
		napi_gro_receive(rx->napi, skb);
	}
}

/* Takes the message at the head, whatever becomes of it. False: the queue is broken. */
static bool svio_rx_take(struct svio_rx *rx, bool first)
{
	struct sk_buff *skb = NULL;
	u32 bytes;
	int count = svio_rx_measure(rx, &bytes);

	if (unlikely(count < 0)) {
		if (net_ratelimit())
			netif_err(rx->priv, rx_err, rx->priv->netdev,
				  "receive queue %u: the device wrote nonsense at position %u\n",
				  rx->index, rx->next);
		svio_count(&rx->stats.sync, &rx->stats.length_errors);
		rx->broken = true;
		svio_request_reset(rx->priv);
		return false;
	}

	if (unlikely(test_bit(SVIO_TESTING, &rx->priv->state)) &&
	    svio_selftest_take(rx, count, bytes)) {
		svio_rx_consume(rx, count);
		return true;
	}

	if (unlikely(bytes < ETH_HLEN || count > MAX_SKB_FRAGS + 1)) {
		svio_count(&rx->stats.sync, &rx->stats.length_errors);
	} else if (svio_rx_xdp(rx)) {
		skb = svio_xdp_receive(rx, count, bytes);
	} else {
		if (count == 1 && bytes <= SVIO_RX_COPYBREAK)
			skb = svio_rx_copy(rx, svio_rx_buf(rx, rx->next));
		else
			skb = svio_rx_build(rx, count);
		if (unlikely(!skb))
			svio_count(&rx->stats.sync, &rx->stats.dropped);
	}
	if (likely(skb))
		skb = svio_rx_describe(rx, skb);
	svio_rx_consume(rx, count);
	if (likely(skb))
		svio_rx_deliver(rx, skb, count, bytes, first);
	return true;
}

/* Returns the messages that were taken. */
int svio_rx_clean(struct svio_rx *rx, int budget)
{
	u32 batch = min_t(u32, rx->ring.size / 4, SVIO_RX_BATCH);
	int work = 0;

	while (work < budget && svio_rx_ready(rx)) {
		/* Ownership first: the rest of the entry is stale until DONE is seen. */
		dma_rmb();
		if (!svio_rx_take(rx, work == 0))
			break;
		work++;
		if (rx->ring.size - (rx->post - rx->next) >= batch)
			svio_rx_fill(rx);
	}
	/* Also what an earlier refill left undone, see svio_priv.refill. */
	if (!rx->broken && rx->ring.size - (rx->post - rx->next) >= batch)
		svio_rx_fill(rx);
	return work;
}
