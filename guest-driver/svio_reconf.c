// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: other queue sizes and buffers while the interface is up */
#include "svio.h"

static void svio_swap_all(struct svio_priv *priv, struct svio_pair_mem *mem)
{
	int i;

	for (i = 0; i < priv->pairs; i++) {
		svio_mem_swap(&priv->pair[i], &mem[i]);
		svio_pair_clear(&priv->pair[i]);
	}
}

/*
 * The new memory is there before the queues stop, and the old one until they run
 * again: whatever fails, the interface works on with what it had.
 */
static int svio_exchange(struct svio_priv *priv, struct svio_pair_mem *mem)
{
	int err;

	svio_down(priv);
	svio_swap_all(priv, mem);
	err = svio_up(priv);
	if (!err)
		return 0;
	svio_swap_all(priv, mem);
	if (svio_up(priv)) {
		netif_err(priv, drv, priv->netdev,
			  "the queues do not start with what they had before either\n");
		svio_request_reset(priv);
	}
	return err;
}

/* A pool that knows its NAPI may go only while that is disabled. */
static void svio_free_all(struct svio_priv *priv, struct svio_pair_mem *mem)
{
	bool up = test_bit(SVIO_UP, &priv->state);
	int i;

	for (i = 0; i < priv->pairs; i++) {
		struct svio_pair *pair = &priv->pair[i];

		if (up)
			napi_disable(&pair->napi);
		svio_mem_free(pair, &mem[i]);
		if (!up)
			continue;
		napi_enable(&pair->napi);
		/* A signal that came before napi_enable() was lost. */
		svio_napi_kick(pair);
	}
}

int svio_reconfigure(struct svio_priv *priv, u32 tx_size, u32 rx_size, bool xdp)
{
	struct svio_pair_mem *mem;
	int i, err = 0;

	if (test_bit(SVIO_OPEN, &priv->state)) {
		if (!test_bit(SVIO_UP, &priv->state))
			return -EBUSY; /* a reset is on its way */
		mem = kcalloc(priv->pairs, sizeof(*mem), GFP_KERNEL);
		if (!mem)
			return -ENOMEM;
		for (i = 0; i < priv->pairs && !err; i++)
			err = svio_mem_alloc(&priv->pair[i], &mem[i], tx_size, rx_size, xdp);
		if (!err)
			err = svio_exchange(priv, mem);
		svio_free_all(priv, mem);
		kfree(mem);
	}
	if (err)
		return err;
	priv->tx_size = tx_size;
	priv->rx_size = rx_size;
	priv->xdp = xdp;
	return 0;
}
