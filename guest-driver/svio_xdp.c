// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: XDP programs on received frames, frames that XDP sends */
#include <linux/bpf_trace.h>
#include <linux/filter.h>

#include "svio.h"

/* What svio_rx.xdp_todo holds. */
#define SVIO_XDP_KICK BIT(0) /* frames were posted: the doorbell check is due */
#define SVIO_XDP_REDIRECTED BIT(1)

/* ---- sending: the queue is shared with the stack, under its lock ---- */

static int svio_xdp_post(struct svio_tx *tx, struct xdp_frame *xdpf, dma_addr_t dma, u8 kind)
{
	u32 head = tx->use;
	u32 slot = head & (tx->ring.size - 1);
	struct svio_tx_buf *buf = &tx->buf[slot];

	/* The stack counts on room for a whole chain while the queue is not stopped. */
	if (unlikely(svio_tx_free(tx) <= tx->chain_max)) {
		svio_count(&tx->send.sync, &tx->send.xdp_full);
		return -ENOSPC;
	}
	tx->ring.entry[slot].addr = cpu_to_le64(dma);
	tx->ring.entry[slot].len = cpu_to_le32(xdpf->len);
	dma_unmap_addr_set(buf, dma, dma);
	dma_unmap_len_set(buf, len, xdpf->len);
	buf->frag = false;
	buf->kind = kind;
	buf->xdpf = xdpf;
	WRITE_ONCE(tx->use, head + 1);
	svio_tx_publish(tx, head, 1, 0);
	txq_trans_cond_update(tx->txq);
	svio_count(&tx->send.sync, &tx->send.xdp_sent);
	return 0;
}

/* A frame that was received goes out again, in its own page. */
static bool svio_xdp_tx(struct svio_rx *rx, struct svio_rx_buf *rx_buf, struct xdp_buff *xdp)
{
	struct svio_tx *tx = &rx->priv->pair[rx->index].tx;
	struct xdp_frame *xdpf = xdp_convert_buff_to_frame(xdp);
	dma_addr_t dma;
	int err;

	if (unlikely(!xdpf))
		return false;
	dma = page_pool_get_dma_addr(rx_buf->page) +
	      (xdpf->data - page_address(rx_buf->page));
	dma_sync_single_for_device(&rx->priv->pdev->dev, dma, xdpf->len, DMA_BIDIRECTIONAL);
	__netif_tx_lock(tx->txq, smp_processor_id());
	err = svio_xdp_post(tx, xdpf, dma, SVIO_TX_XDP_OWN);
	__netif_tx_unlock(tx->txq);
	if (err)
		return false;
	rx->xdp_todo |= SVIO_XDP_KICK;
	return true;
}

/* Completed, or given up: `budget` is NAPI's, 0 outside of it. */
void svio_xdp_return(struct svio_tx *tx, struct svio_tx_buf *buf, int budget)
{
	if (budget && buf->kind == SVIO_TX_XDP_OWN)
		xdp_return_frame_rx_napi(buf->xdpf);
	else
		xdp_return_frame(buf->xdpf);
	buf->xdpf = NULL;
}

static int svio_xdp_xmit_one(struct svio_tx *tx, struct xdp_frame *xdpf)
{
	struct device *dev = &tx->priv->pdev->dev;
	dma_addr_t dma;
	int err;

	if (unlikely(xdpf->len < ETH_HLEN || xdp_frame_has_frags(xdpf)))
		return -EINVAL;
	dma = dma_map_single(dev, xdpf->data, xdpf->len, DMA_TO_DEVICE);
	if (dma_mapping_error(dev, dma))
		return -ENOMEM;
	err = svio_xdp_post(tx, xdpf, dma, SVIO_TX_XDP_FRAME);
	if (err)
		dma_unmap_single(dev, dma, xdpf->len, DMA_TO_DEVICE);
	return err;
}

/* Frames that other devices redirect to us. Returns how many are ours now. */
int svio_xdp_xmit(struct net_device *netdev, int count, struct xdp_frame **frames, u32 flags)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int cpu = smp_processor_id();
	struct svio_tx *tx = &priv->pair[cpu % READ_ONCE(priv->pairs)].tx;
	int sent = 0;

	if (unlikely(flags & ~XDP_XMIT_FLAGS_MASK))
		return -EINVAL;
	if (!test_bit(SVIO_UP, &priv->state) || !netif_carrier_ok(netdev))
		return -ENETDOWN;

	__netif_tx_lock(tx->txq, cpu);
	/* Once more, as svio_down() clears it and then takes this lock before the ring goes. */
	if (test_bit(SVIO_UP, &priv->state)) {
		while (sent < count && !svio_xdp_xmit_one(tx, frames[sent]))
			sent++;
		if (flags & XDP_XMIT_FLUSH)
			svio_tx_kick(tx);
	}
	__netif_tx_unlock(tx->txq);
	return sent;
}

/* ---- receiving ---- */

static struct sk_buff *svio_xdp_build(struct svio_rx *rx, struct svio_rx_buf *buf,
				      const struct xdp_buff *xdp)
{
	u32 len = xdp->data_end - xdp->data;
	u32 metasize = xdp->data - xdp->data_meta;
	struct sk_buff *skb;

	if (len <= SVIO_RX_COPYBREAK && !metasize) {
		skb = napi_alloc_skb(rx->napi, len);
		if (likely(skb)) {
			skb_put_data(skb, xdp->data, len);
			svio_count(&rx->stats.sync, &rx->stats.copied);
		}
		return skb;
	}
	skb = napi_build_skb(xdp->data_hard_start, buf->truesize);
	if (unlikely(!skb))
		return NULL;
	skb_mark_for_recycle(skb);
	skb_reserve(skb, xdp->data - xdp->data_hard_start);
	skb_put(skb, len);
	if (metasize)
		skb_metadata_set(skb, metasize);
	buf->page = NULL;
	return skb;
}

/* What became of a frame that the stack does not get. */
static void svio_xdp_count(struct svio_rx *rx, u64_stats_t *counter, u32 bytes)
{
	u64_stats_update_begin(&rx->stats.sync);
	u64_stats_inc(&rx->stats.packets);
	u64_stats_add(&rx->stats.bytes, bytes);
	u64_stats_inc(counter);
	u64_stats_update_end(&rx->stats.sync);
}

static u64_stats_t *svio_xdp_act(struct svio_rx *rx, struct svio_rx_buf *buf,
				 struct bpf_prog *prog, struct xdp_buff *xdp)
{
	struct net_device *netdev = rx->priv->netdev;
	u32 act = bpf_prog_run_xdp(prog, xdp);

	switch (act) {
	case XDP_PASS:
		return &rx->stats.xdp_pass;
	case XDP_DROP:
		return &rx->stats.xdp_drop;
	case XDP_TX:
		if (!svio_xdp_tx(rx, buf, xdp))
			break;
		buf->page = NULL;
		return &rx->stats.xdp_tx;
	case XDP_REDIRECT:
		if (xdp_do_redirect(netdev, xdp, prog))
			break;
		rx->xdp_todo |= SVIO_XDP_REDIRECTED;
		buf->page = NULL;
		return &rx->stats.xdp_redirect;
	default:
		bpf_warn_invalid_xdp_action(netdev, prog, act);
		break;
	case XDP_ABORTED:
		break;
	}
	trace_xdp_exception(netdev, prog, act);
	return &rx->stats.xdp_errors;
}

/*
 * Runs the program on the message at the head. A page that stays in the rx_buf is
 * still ours and goes back into the pool.
 */
struct sk_buff *svio_xdp_receive(struct svio_rx *rx, int count, u32 bytes)
{
	struct svio_rx_buf *buf = svio_rx_buf(rx, rx->next);
	struct bpf_prog *prog = rcu_dereference_bh(rx->priv->xdp_prog);
	struct sk_buff *skb;
	struct xdp_buff xdp;
	u64_stats_t *what;

	if (unlikely(count > 1)) {
		/* The program could not see all of it, so nobody gets it. */
		svio_xdp_count(rx, &rx->stats.xdp_too_long, bytes);
		return NULL;
	}
	svio_rx_sync(rx, buf);
	xdp_init_buff(&xdp, buf->truesize, &rx->rxq);
	xdp_prepare_buff(&xdp, page_address(buf->page) + buf->offset, rx->headroom, buf->len,
			 true);
	if (prog) {
		what = svio_xdp_act(rx, buf, prog, &xdp);
		if (what != &rx->stats.xdp_pass) {
			svio_xdp_count(rx, what, bytes);
			return NULL;
		}
		svio_count(&rx->stats.sync, what);
	}
	skb = svio_xdp_build(rx, buf, &xdp);
	if (unlikely(!skb))
		svio_count(&rx->stats.sync, &rx->stats.dropped);
	return skb;
}

/* At the end of a poll, for all of its frames. */
void svio_xdp_flush(struct svio_rx *rx)
{
	struct svio_tx *tx = &rx->priv->pair[rx->index].tx;

	if (rx->xdp_todo & SVIO_XDP_REDIRECTED)
		xdp_do_flush();
	if (rx->xdp_todo & SVIO_XDP_KICK) {
		__netif_tx_lock(tx->txq, smp_processor_id());
		svio_tx_kick(tx);
		__netif_tx_unlock(tx->txq);
	}
	rx->xdp_todo = 0;
}

/* ---- set-up, under RTNL ---- */

static void svio_xdp_set_prog(struct svio_priv *priv, struct bpf_prog *prog)
{
	struct bpf_prog *old = rtnl_dereference(priv->xdp_prog);

	rcu_assign_pointer(priv->xdp_prog, prog);
	if (old)
		bpf_prog_put(old); /* after a grace period */
}

static int svio_xdp_setup(struct net_device *netdev, struct bpf_prog *prog,
			  struct netlink_ext_ack *extack)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int err;

	if (!prog) {
		svio_xdp_set_prog(priv, NULL);
		netdev->max_mtu = priv->max_mtu;
		/* Buffers for XDP carry all the same what the stack gets, so this may fail. */
		err = svio_reconfigure(priv, priv->tx_size, priv->rx_size, false);
		if (err)
			netif_warn(priv, drv, netdev, "buffers stay as for XDP: %d\n", err);
		netdev_update_features(netdev);
		return 0;
	}
	if (netdev->mtu > SVIO_XDP_MTU_MAX) {
		NL_SET_ERR_MSG_MOD(extack,
				   "the MTU is too large for XDP, a frame must fit one page");
		return -EOPNOTSUPP;
	}
	if (!priv->xdp) {
		err = svio_reconfigure(priv, priv->tx_size, priv->rx_size, true);
		if (err) {
			NL_SET_ERR_MSG_MOD(extack, "the queues do not start with buffers for XDP");
			return err;
		}
	}
	netdev->max_mtu = min_t(u32, priv->max_mtu, SVIO_XDP_MTU_MAX);
	/* No program can cope with a frame whose checksum or segmentation is still to be done. */
	netdev_update_features(netdev);
	if (netdev->features & (NETIF_F_RXCSUM | NETIF_F_GRO_HW)) {
		NL_SET_ERR_MSG_MOD(extack, "the device goes on with receive offloads");
		return -EIO;
	}
	svio_xdp_set_prog(priv, prog);
	return 0;
}

int svio_bpf(struct net_device *netdev, struct netdev_bpf *bpf)
{
	switch (bpf->command) {
	case XDP_SETUP_PROG:
		return svio_xdp_setup(netdev, bpf->prog, bpf->extack);
	default:
		return -EINVAL;
	}
}
