// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: memory of a queue pair, NAPI, the send queue (SPEC 5.3, 5.5) */
#include "svio.h"

/* ---- doorbells, both directions ---- */

/* After positions [from, to) were posted: does the device want to hear of it? */
bool svio_bell(const struct svio_ring *ring, void __iomem *bell, u32 from, u32 to)
{
	/*
	 * Closes the race with a core that goes to sleep: it stores bell_at and
	 * then looks at the entry, we store the entry and then look at bell_at.
	 * Without a full fence on both sides each can miss the other's store, and
	 * the entry lies unseen. mb(), as the peer is no CPU of this kernel:
	 * smp_mb() may be a lock-prefixed instruction, no fence for the host.
	 */
	mb();
	if (!svio_crossed(le32_to_cpu(READ_ONCE(ring->event->bell_at)), from, to))
		return false;
	writel(1, bell);
	return true;
}

/* ---- sending ---- */

u32 svio_tx_free(const struct svio_tx *tx)
{
	/* Pairs with the release in svio_tx_clean(): a free slot's tx_buf is no longer read. */
	return tx->ring.size - (READ_ONCE(tx->use) - smp_load_acquire(&tx->clean));
}

static u32 svio_tx_done(const struct svio_tx *tx)
{
	return le32_to_cpu(READ_ONCE(tx->ring.event->done));
}

static void svio_tx_unmap(struct svio_tx *tx, struct svio_tx_buf *buf)
{
	struct device *dev = &tx->priv->pdev->dev;

	if (buf->kind == SVIO_TX_XDP_OWN)
		return; /* the pool's own mapping */
	if (buf->frag)
		dma_unmap_page(dev, dma_unmap_addr(buf, dma), dma_unmap_len(buf, len),
			       DMA_TO_DEVICE);
	else
		dma_unmap_single(dev, dma_unmap_addr(buf, dma), dma_unmap_len(buf, len),
				 DMA_TO_DEVICE);
}

/* Fills all but `flags` and the offload fields, which only flags make hold. */
static int svio_tx_fill(struct svio_tx *tx, u32 position, dma_addr_t dma, u32 len, bool frag)
{
	u32 slot = position & (tx->ring.size - 1);
	struct svio_tx_buf *buf = &tx->buf[slot];

	if (dma_mapping_error(&tx->priv->pdev->dev, dma))
		return -ENOMEM;
	tx->ring.entry[slot].addr = cpu_to_le64(dma);
	tx->ring.entry[slot].len = cpu_to_le32(len);
	dma_unmap_addr_set(buf, dma, dma);
	dma_unmap_len_set(buf, len, len);
	buf->frag = frag;
	buf->kind = SVIO_TX_SKB;
	buf->skb = NULL;
	return 0;
}

/* Maps an skb into the entries from tx->use on, which are not handed over yet. */
static int svio_tx_map(struct svio_tx *tx, struct sk_buff *skb)
{
	struct device *dev = &tx->priv->pdev->dev;
	u32 position = tx->use;
	const skb_frag_t *frag;
	int i, err;

	err = svio_tx_fill(tx, position,
			   dma_map_single(dev, skb->data, skb_headlen(skb), DMA_TO_DEVICE),
			   skb_headlen(skb), false);
	if (err)
		return err;
	for (i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		frag = &skb_shinfo(skb)->frags[i];
		err = svio_tx_fill(tx, position + 1,
				   skb_frag_dma_map(dev, frag, 0, skb_frag_size(frag),
						    DMA_TO_DEVICE),
				   skb_frag_size(frag), true);
		if (err)
			goto unwind;
		position++;
	}
	tx->buf[position & (tx->ring.size - 1)].skb = skb;
	return 0;

unwind:
	do {
		svio_tx_unmap(tx, &tx->buf[position & (tx->ring.size - 1)]);
	} while (position-- != tx->use);
	return err;
}

void svio_tx_publish(struct svio_tx *tx, u32 head, u32 count, u32 head_flags)
{
	u32 position = head + count - 1;
	u32 more = 0;

	/*
	 * The device must not see an entry as posted before its address, nor
	 * complete it before tx->use covers it, as svio_tx_clean() checks.
	 */
	dma_wmb();
	for (;; position--) {
		u32 flags = svio_lap(position, tx->ring.size) ? SVIO_ENTRY_POSTED : 0;

		/* A device that sees the head takes the whole chain. */
		if (position == head) {
			more |= tx->head_flags | head_flags;
			dma_wmb();
		}
		WRITE_ONCE(tx->ring.entry[position & (tx->ring.size - 1)].flags,
			   cpu_to_le32(flags | more));
		if (position == head)
			break;
		more = SVIO_ENTRY_MORE;
	}
}

/* The doorbell check for all that was posted since the last one. */
void svio_tx_kick(struct svio_tx *tx)
{
	u32 from = tx->belled;
	bool rung;

	if (from == tx->use)
		return;
	tx->belled = tx->use;
	rung = svio_bell(&tx->ring, tx->bell, from, tx->use);
	svio_count(&tx->send.sync, rung ? &tx->send.bells : &tx->send.bells_suppressed);
}

/*
 * Asks for the signal of the last entry of what is about to be published. So in
 * a stream the time of moderation counts from the latest message and does not
 * run out: the sender itself has the completions reclaimed, each SVIO_TX_RECLAIM
 * of them. Where that many are outstanding the device is behind, and the signal
 * stays where it was asked for. NAPI may store signal_at at the same time, and
 * either value is good: its own is older, and it looks for completions after it.
 */
static void svio_tx_ask_later(struct svio_tx *tx, u32 head, u32 count)
{
	u32 last = head + count - 1;

	if (last - READ_ONCE(tx->clean) < SVIO_TX_RECLAIM)
		WRITE_ONCE(tx->ring.event->signal_at, cpu_to_le32(last));
}

/* Stops the queue if another message might not fit. */
static void svio_tx_maybe_stop(struct svio_tx *tx)
{
	if (likely(svio_tx_free(tx) >= tx->chain_max))
		return;
	netif_tx_stop_queue(tx->txq);
	/*
	 * Closes the race with svio_tx_clean(): it frees entries and then looks
	 * whether the queue is stopped, we stop it and then look for free entries.
	 */
	mb();
	if (svio_tx_free(tx) >= tx->chain_max) {
		netif_tx_start_queue(tx->txq);
		return;
	}
	svio_count(&tx->send.sync, &tx->send.stops);
}

static int svio_tx_linearize(struct svio_tx *tx, struct sk_buff *skb)
{
	svio_count(&tx->send.sync, &tx->send.linearized);
	return skb_linearize(skb);
}

netdev_tx_t svio_start_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);
	struct svio_pair *pair = &priv->pair[skb_get_queue_mapping(skb)];
	struct svio_tx *tx = &pair->tx;
	u32 count, head = tx->use, flags = 0;
	bool kick;

	if (unlikely(eth_skb_pad(skb))) {
		skb = NULL;
		goto drop;
	}
	if (unlikely(skb_shinfo(skb)->nr_frags >= tx->chain_max) && svio_tx_linearize(tx, skb))
		goto drop;
	count = skb_shinfo(skb)->nr_frags + 1;
	if (unlikely(svio_tx_free(tx) < count)) {
		svio_tx_maybe_stop(tx);
		svio_tx_kick(tx);
		return NETDEV_TX_BUSY;
	}
	if (unlikely(svio_tx_map(tx, skb)))
		goto drop;
	if (skb->ip_summed == CHECKSUM_PARTIAL || skb_vlan_tag_present(skb))
		flags = svio_tx_offload(&tx->ring.entry[head & (tx->ring.size - 1)], skb);

	skb_tx_timestamp(skb);
	/* A polling device may complete it, and NAPI account for that, right after publishing. */
	kick = __netdev_tx_sent_queue(tx->txq, skb->len, netdev_xmit_more());
	WRITE_ONCE(tx->use, head + count);
	svio_tx_ask_later(tx, head, count);
	svio_tx_publish(tx, head, count, flags);

	svio_tx_maybe_stop(tx);
	if (kick || netif_xmit_stopped(tx->txq))
		svio_tx_kick(tx);
	/* A busy sender asks for the completions itself rather than wait for a signal. */
	if (svio_tx_done(tx) - READ_ONCE(tx->clean) >= SVIO_TX_RECLAIM)
		napi_schedule(&pair->napi);
	return NETDEV_TX_OK;

drop:
	dev_kfree_skb_any(skb);
	svio_count(&tx->send.sync, &tx->send.dropped);
	/* This was perhaps the last of a batch, and the ones before it wait for the check. */
	if (!netdev_xmit_more())
		svio_tx_kick(tx);
	return NETDEV_TX_OK;
}

/* Frees the entries [clean, clean + todo). */
static void svio_tx_release(struct svio_tx *tx, u32 todo, int budget)
{
	unsigned int packets = 0, bytes = 0, xdp_packets = 0, xdp_bytes = 0;
	u32 clean = tx->clean;
	struct svio_tx_buf *buf;

	for (; todo; todo--, clean++) {
		buf = &tx->buf[clean & (tx->ring.size - 1)];
		svio_tx_unmap(tx, buf);
		if (!buf->skb)
			continue;
		if (buf->kind != SVIO_TX_SKB) {
			xdp_packets++;
			xdp_bytes += buf->xdpf->len;
			svio_xdp_return(tx, buf, budget);
			continue;
		}
		packets++;
		bytes += buf->skb->len;
		napi_consume_skb(buf->skb, budget);
		buf->skb = NULL;
	}
	/* The sender must not refill a tx_buf that we still read. */
	smp_store_release(&tx->clean, clean);

	u64_stats_update_begin(&tx->done.sync);
	u64_stats_add(&tx->done.packets, packets + xdp_packets);
	u64_stats_add(&tx->done.bytes, bytes + xdp_bytes);
	u64_stats_update_end(&tx->done.sync);
	netdev_tx_completed_queue(tx->txq, packets, bytes);
}

static void svio_tx_maybe_wake(struct svio_tx *tx)
{
	/* The other half of svio_tx_maybe_stop(): `clean` is stored before we look. */
	mb();
	if (likely(!netif_tx_queue_stopped(tx->txq)) || svio_tx_free(tx) < tx->wake_at ||
	    !test_bit(SVIO_UP, &tx->priv->state))
		return;
	netif_tx_wake_queue(tx->txq);
	svio_count(&tx->done.sync, &tx->done.wakes);
}

/* Returns whether completions are left over. */
static bool svio_tx_clean(struct svio_tx *tx, int budget)
{
	u32 done, todo;

	if (unlikely(tx->broken))
		return false;
	done = svio_tx_done(tx);
	/* Nothing of these entries or of tx->use is looked at before `done` says so. */
	dma_rmb();
	todo = done - tx->clean;
	if (!todo)
		return false;
	if (unlikely(todo > READ_ONCE(tx->use) - tx->clean)) {
		netif_err(tx->priv, tx_err, tx->priv->netdev,
			  "send queue: the device completed %u of [%u, %u)\n",
			  done, tx->clean, tx->use);
		tx->broken = true;
		svio_request_reset(tx->priv);
		return false;
	}
	svio_tx_release(tx, min_t(u32, todo, SVIO_TX_BUDGET), budget);
	svio_tx_maybe_wake(tx);
	return todo > SVIO_TX_BUDGET;
}

/* What the device has completed was sent; the rest is lost with the queue. */
static void svio_tx_purge(struct svio_tx *tx)
{
	u32 done = tx->broken ? 0 : svio_tx_done(tx) - tx->clean;
	struct svio_tx_buf *buf;

	if (done && done <= tx->use - tx->clean)
		svio_tx_release(tx, done, 0);
	for (; tx->clean != tx->use; tx->clean++) {
		buf = &tx->buf[tx->clean & (tx->ring.size - 1)];
		svio_tx_unmap(tx, buf);
		if (buf->skb)
			svio_count(&tx->send.sync, &tx->send.lost);
		if (buf->skb && buf->kind != SVIO_TX_SKB)
			svio_xdp_return(tx, buf, 0);
		else if (buf->skb)
			dev_kfree_skb_any(buf->skb);
		buf->skb = NULL;
	}
	netdev_tx_reset_queue(tx->txq);
}

/* ---- NAPI ---- */

/*
 * Asks for signals: for the next message, and for the oldest entry that is not
 * completed, sent already or not. So while NAPI sleeps signal_at of the send
 * queue always lies in [clean, use), or at `use` when nothing is outstanding,
 * and a message that is sent later needs no arming of its own, though it may move
 * signal_at on (see svio_tx_ask_later()). The moderation of
 * the device keeps this rare: if a message arrives while the signal is held back,
 * NAPI completes the sent ones too, moves signal_at on, and the signal is dropped.
 */
static void svio_arm(struct svio_pair *pair)
{
	struct svio_tx *tx = &pair->tx;
	struct svio_rx *rx = &pair->rx;

	WRITE_ONCE(rx->ring.event->signal_at, cpu_to_le32(rx->next));
	WRITE_ONCE(tx->ring.event->signal_at, cpu_to_le32(tx->clean));
	/*
	 * Closes the race with a device that completes an entry now: it stores the
	 * completion and then looks at signal_at, we store signal_at and then look
	 * for the completion. mb() and not smp_mb(): see svio_bell().
	 */
	mb();
	if (!svio_rx_ready(rx) && (tx->broken || svio_tx_done(tx) == tx->clean))
		return;
	svio_count(&pair->stats.sync, &pair->stats.repolls);
	napi_schedule(&pair->napi);
}

int svio_poll(struct napi_struct *napi, int budget)
{
	struct svio_pair *pair = container_of(napi, struct svio_pair, napi);
	bool more = svio_tx_clean(&pair->tx, budget);
	int work;

	/* netpoll wants its skbs back and nothing else */
	if (unlikely(!budget))
		return 0;
	work = svio_rx_clean(&pair->rx, budget);
	if (pair->rx.xdp_todo)
		svio_xdp_flush(&pair->rx);
	svio_count(&pair->stats.sync, &pair->stats.polls);
	if (more || work == budget)
		return budget;
	if (napi_complete_done(napi, work)) {
		if (READ_ONCE(pair->priv->rx_adaptive))
			svio_dim_poll(pair);
		svio_arm(pair);
	}
	return work;
}

void svio_napi_kick(struct svio_pair *pair)
{
	local_bh_disable();
	napi_schedule(&pair->napi);
	local_bh_enable();
}

/* ---- memory ---- */

static int svio_ring_alloc(struct svio_priv *priv, struct svio_ring *ring, u32 size)
{
	struct device *dev = &priv->pdev->dev;

	ring->size = size;
	ring->entry = dma_alloc_coherent(dev, size * sizeof(*ring->entry), &ring->entry_dma,
					 GFP_KERNEL);
	ring->event = dma_alloc_coherent(dev, sizeof(*ring->event), &ring->event_dma,
					 GFP_KERNEL);
	return ring->entry && ring->event ? 0 : -ENOMEM;
}

static void svio_ring_free(struct svio_priv *priv, struct svio_ring *ring)
{
	struct device *dev = &priv->pdev->dev;

	if (ring->entry)
		dma_free_coherent(dev, ring->size * sizeof(*ring->entry), ring->entry,
				  ring->entry_dma);
	if (ring->event)
		dma_free_coherent(dev, sizeof(*ring->event), ring->event, ring->event_dma);
	ring->entry = NULL;
	ring->event = NULL;
}

static struct page_pool *svio_pool_create(struct svio_pair *pair, u32 size, bool xdp)
{
	struct device *dev = &pair->priv->pdev->dev;
	struct page_pool_params params = {
		.flags = PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV | PP_FLAG_PAGE_FRAG,
		.pool_size = size,
		.nid = dev_to_node(dev),
		.dev = dev,
		/* XDP_TX sends from the page that a frame came in. */
		.dma_dir = xdp ? DMA_BIDIRECTIONAL : DMA_FROM_DEVICE,
		.max_len = PAGE_SIZE,
	};

	svio_pool_set_napi(&params, &pair->napi);
	return page_pool_create(&params);
}

/* Rings, pool and what XDP wants to know of the pool. The pair's NAPI must be there. */
int svio_mem_alloc(struct svio_pair *pair, struct svio_pair_mem *mem, u32 tx_size, u32 rx_size,
		   bool xdp)
{
	struct svio_priv *priv = pair->priv;
	int err = -ENOMEM;

	memset(mem, 0, sizeof(*mem));
	mem->headroom = xdp ? SVIO_XDP_HEADROOM : SVIO_RX_HEADROOM;
	mem->tx_buf = kvcalloc(tx_size, sizeof(*mem->tx_buf), GFP_KERNEL);
	mem->rx_buf = kvcalloc(rx_size, sizeof(*mem->rx_buf), GFP_KERNEL);
	if (!mem->tx_buf || !mem->rx_buf || svio_ring_alloc(priv, &mem->tx_ring, tx_size) ||
	    svio_ring_alloc(priv, &mem->rx_ring, rx_size))
		goto fail;
	mem->pool = svio_pool_create(pair, rx_size, xdp);
	if (IS_ERR(mem->pool)) {
		err = PTR_ERR(mem->pool);
		mem->pool = NULL;
		goto fail;
	}
	err = xdp_rxq_info_reg(&mem->rxq, priv->netdev, pair->index, pair->napi.napi_id);
	if (!err)
		err = xdp_rxq_info_reg_mem_model(&mem->rxq, MEM_TYPE_PAGE_POOL, mem->pool);
	if (!err)
		return 0;
fail:
	svio_mem_free(pair, mem);
	return err;
}

void svio_mem_free(struct svio_pair *pair, struct svio_pair_mem *mem)
{
	if (xdp_rxq_info_is_reg(&mem->rxq))
		xdp_rxq_info_unreg(&mem->rxq);
	if (mem->pool)
		page_pool_destroy(mem->pool);
	svio_ring_free(pair->priv, &mem->tx_ring);
	svio_ring_free(pair->priv, &mem->rx_ring);
	kvfree(mem->tx_buf);
	kvfree(mem->rx_buf);
	memset(mem, 0, sizeof(*mem));
}

/* Exchanges the pair's memory for `mem`. The pair must be down and purged. */
void svio_mem_swap(struct svio_pair *pair, struct svio_pair_mem *mem)
{
	struct svio_tx *tx = &pair->tx;
	struct svio_rx *rx = &pair->rx;

	swap(tx->ring, mem->tx_ring);
	swap(tx->buf, mem->tx_buf);
	swap(rx->ring, mem->rx_ring);
	swap(rx->buf, mem->rx_buf);
	swap(rx->pool, mem->pool);
	swap(rx->rxq, mem->rxq);
	swap(rx->headroom, mem->headroom);
	tx->chain_max = min_t(u32, tx->ring.size / 2,
			      min_t(u32, MAX_SKB_FRAGS + 1, SVIO_CHAIN_MAX));
	tx->wake_at = max(tx->chain_max, tx->ring.size / 4);
}

int svio_pair_alloc(struct svio_pair *pair)
{
	struct svio_priv *priv = pair->priv;
	struct svio_pair_mem mem;
	int err;

	netif_napi_add(priv->netdev, &pair->napi, svio_poll);
	svio_napi_set_irq(&pair->napi, pci_irq_vector(priv->pdev, pair->index + 1));
	err = svio_mem_alloc(pair, &mem, priv->tx_size, priv->rx_size, priv->xdp);
	if (err) {
		netif_napi_del(&pair->napi);
		return err;
	}
	svio_mem_swap(pair, &mem);
	pair->tx.txq = netdev_get_tx_queue(priv->netdev, pair->index);
	svio_pair_clear(pair);
	return 0;
}

/* The device must have stopped, and the pair been purged. */
void svio_pair_free(struct svio_pair *pair)
{
	struct svio_pair_mem mem = {};

	svio_mem_swap(pair, &mem);
	svio_mem_free(pair, &mem);
	netif_napi_del(&pair->napi);
}

/* Position 0 of both queues. A zeroed signal_at asks for the first completion. */
void svio_pair_clear(struct svio_pair *pair)
{
	struct svio_tx *tx = &pair->tx;
	struct svio_rx *rx = &pair->rx;

	memset(tx->ring.entry, 0, tx->ring.size * sizeof(*tx->ring.entry));
	memset(tx->ring.event, 0, sizeof(*tx->ring.event));
	memset(rx->ring.entry, 0, rx->ring.size * sizeof(*rx->ring.entry));
	memset(rx->ring.event, 0, sizeof(*rx->ring.event));
	tx->use = 0;
	tx->belled = 0;
	tx->clean = 0;
	tx->broken = false;
	rx->next = 0;
	rx->post = 0;
	rx->broken = false;
}

/* Gives every buffer back. The device must have stopped, and NAPI and the sender too. */
void svio_pair_purge(struct svio_pair *pair)
{
	svio_tx_purge(&pair->tx);
	svio_rx_purge(&pair->rx);
}
