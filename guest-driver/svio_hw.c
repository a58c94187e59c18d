// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: the function and its queues as registers (SPEC 3 to 5.1) */
#include "svio.h"

#define SVIO_POLL_US 50

static const char * const svio_queue_errors[SVIO_QERR_COUNT] = {
	[SVIO_QERR_NONE] = "no error",
	[SVIO_QERR_CONFIG] = "bad configuration",
	[SVIO_QERR_DMA] = "bad address",
	[SVIO_QERR_TORN] = "torn chain",
	[SVIO_QERR_CHAIN] = "chain too long",
	[SVIO_QERR_LENGTH] = "message too long",
	[SVIO_QERR_EMPTY] = "empty entry",
	[SVIO_QERR_FLAGS] = "bad flags",
	[SVIO_QERR_OFFLOAD] = "bad offload fields",
};

static const char *svio_queue_error(u32 state)
{
	u32 error = SVIO_QUEUE_ERROR_OF(state);

	return error < SVIO_QERR_COUNT ? svio_queue_errors[error] : "unknown error";
}

/* A function that was pulled out, or whose memory decoding is off, has no magic. */
bool svio_hw_gone(struct svio_priv *priv)
{
	if (svio_rd(priv, SVIO_REG_MAGIC) != SVIO_MAGIC)
		set_bit(SVIO_GONE, &priv->state);
	return test_bit(SVIO_GONE, &priv->state);
}

int svio_hw_identify(struct svio_priv *priv)
{
	struct device *dev = &priv->pdev->dev;
	u32 magic = svio_rd(priv, SVIO_REG_MAGIC);
	u32 version = svio_rd(priv, SVIO_REG_ABI_VERSION);

	if (magic != SVIO_MAGIC) {
		dev_err(dev, "not an svio device: magic is %#010x, expected %#010x\n",
			magic, SVIO_MAGIC);
		return -ENODEV;
	}
	if (version >> 16 != SVIO_ABI_MAJOR) {
		dev_err(dev, "the device speaks version %u.%u of the ABI, this driver %u.x\n",
			version >> 16, version & 0xffff, SVIO_ABI_MAJOR);
		return -ENODEV;
	}
	priv->abi_version = version;
	return 0;
}

/* When it returns 0 the device has forgotten every address that it was given. */
int svio_hw_reset(struct svio_priv *priv)
{
	u32 status;
	int err;

	svio_wr(priv, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
	err = readl_poll_timeout(priv->regs + SVIO_REG_STATUS, status,
				 status & SVIO_STATUS_READY, SVIO_POLL_US,
				 SVIO_READY_TIMEOUT_US);
	if (status == U32_MAX) {
		set_bit(SVIO_GONE, &priv->state);
		dev_err(&priv->pdev->dev, "the device is gone\n");
		return -ENODEV;
	}
	if (err)
		dev_err(&priv->pdev->dev, "reset timed out, status %#x\n", status);
	return err;
}

static int svio_hw_negotiate(struct svio_priv *priv)
{
	u64 offered;
	u32 status;

	offered = svio_rd(priv, SVIO_REG_DEVICE_FEATURES_LO);
	offered |= (u64)svio_rd(priv, SVIO_REG_DEVICE_FEATURES_HI) << 32;
	priv->features = offered & SVIO_FEATURES_WANTED;

	svio_wr(priv, SVIO_REG_DRIVER_FEATURES_LO, lower_32_bits(priv->features));
	svio_wr(priv, SVIO_REG_DRIVER_FEATURES_HI, upper_32_bits(priv->features));
	svio_wr(priv, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
	status = svio_rd(priv, SVIO_REG_STATUS);
	if (!(status & SVIO_STATUS_FEATURES_OK)) {
		dev_err(&priv->pdev->dev,
			"the device refuses features %#llx of the offered %#llx, status %#x\n",
			priv->features, offered, status);
		return -EIO;
	}
	return 0;
}

/* From any state to NEGOTIATED, with the event vector set. */
int svio_hw_init(struct svio_priv *priv)
{
	int err;

	err = svio_hw_identify(priv);
	if (err)
		return err;
	err = svio_hw_reset(priv);
	if (err)
		return err;
	pci_set_master(priv->pdev);
	err = svio_hw_negotiate(priv);
	if (err)
		return err;
	svio_wr(priv, SVIO_REG_EVENT_VECTOR, 0);
	return 0;
}

void svio_hw_read_mac(struct svio_priv *priv, u8 *mac)
{
	u32 lo = svio_rd(priv, SVIO_REG_MAC_LO);
	u32 hi = svio_rd(priv, SVIO_REG_MAC_HI);

	mac[0] = lo;
	mac[1] = lo >> 8;
	mac[2] = lo >> 16;
	mac[3] = lo >> 24;
	mac[4] = hi;
	mac[5] = hi >> 8;
}

static int svio_hw_start_queue(struct svio_priv *priv, const struct svio_ring *ring,
			       u32 pair, u32 dir, u32 moderation)
{
	u32 base = SVIO_QUEUE_REG(pair, dir, 0);
	u32 state;

	svio_wr(priv, base + SVIO_QUEUE_BASE_LO, lower_32_bits(ring->entry_dma));
	svio_wr(priv, base + SVIO_QUEUE_BASE_HI, upper_32_bits(ring->entry_dma));
	svio_wr(priv, base + SVIO_QUEUE_EVENT_LO, lower_32_bits(ring->event_dma));
	svio_wr(priv, base + SVIO_QUEUE_EVENT_HI, upper_32_bits(ring->event_dma));
	svio_wr(priv, base + SVIO_QUEUE_SIZE, ring->size);
	svio_wr(priv, base + SVIO_QUEUE_VECTOR, pair + 1);
	if (priv->features & SVIO_F_MODERATION)
		svio_wr(priv, base + SVIO_QUEUE_MODERATION, moderation);
	svio_wr(priv, base + SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);

	state = svio_rd(priv, base + SVIO_QUEUE_STATE);
	if (SVIO_QUEUE_STATE_OF(state) == SVIO_QUEUE_RUNNING)
		return 0;
	netdev_err(priv->netdev, "%s queue %u does not start: state %u, %s\n",
		   dir == SVIO_SEND ? "send" : "receive", pair,
		   SVIO_QUEUE_STATE_OF(state), svio_queue_error(state));
	return -EIO;
}

/* The rings must be zeroed: positions start at 0 again. */
int svio_hw_start_pair(struct svio_priv *priv, int index)
{
	struct svio_pair *pair = &priv->pair[index];
	int err;

	err = svio_hw_start_queue(priv, &pair->rx.ring, index, SVIO_RECEIVE,
				  svio_dim_start(&pair->rx));
	if (err)
		return err;
	return svio_hw_start_queue(priv, &pair->tx.ring, index, SVIO_SEND,
				   priv->tx_moderation);
}

int svio_hw_start_queues(struct svio_priv *priv)
{
	u32 status;
	int i, err;

	for (i = 0; i < priv->pairs; i++) {
		err = svio_hw_start_pair(priv, i);
		if (err)
			return err;
	}
	svio_wr(priv, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK | SVIO_CONTROL_RUN);
	status = svio_rd(priv, SVIO_REG_STATUS);
	if (!(status & SVIO_STATUS_RUNNING) || (status & SVIO_STATUS_FAILED)) {
		netdev_err(priv->netdev, "the device does not run, status %#x\n", status);
		return -EIO;
	}
	return 0;
}

static int svio_hw_stop_queue(struct svio_priv *priv, u32 pair, u32 dir)
{
	u32 base = SVIO_QUEUE_REG(pair, dir, 0);
	u32 state;
	int err;

	svio_wr(priv, base + SVIO_QUEUE_CONTROL, 0);
	/* All ones: the function is gone, and its answers are not worth waiting for. */
	err = readl_poll_timeout(priv->regs + base + SVIO_QUEUE_STATE, state,
				 state == U32_MAX ||
				 SVIO_QUEUE_STATE_OF(state) == SVIO_QUEUE_DISABLED,
				 SVIO_POLL_US, SVIO_STOP_TIMEOUT_US);
	return state == U32_MAX ? -ENODEV : err;
}

static int svio_hw_disable_pair(struct svio_priv *priv, int index)
{
	int err = svio_hw_stop_queue(priv, index, SVIO_SEND);

	return err ?: svio_hw_stop_queue(priv, index, SVIO_RECEIVE);
}

static void svio_hw_force_stop(struct svio_priv *priv, int index)
{
	netdev_err(priv->netdev, "queue pair %d does not stop\n", index);
	if (svio_hw_gone(priv) || svio_hw_reset(priv))
		pci_clear_master(priv->pdev);
	svio_request_reset(priv);
}

/* As svio_hw_stop_queues(), for one pair. */
void svio_hw_stop_pair(struct svio_priv *priv, int index)
{
	if (svio_hw_disable_pair(priv, index))
		svio_hw_force_stop(priv, index);
}

/*
 * When it returns the device touches no buffer any more, whatever it takes:
 * the caller frees the memory.
 */
void svio_hw_stop_queues(struct svio_priv *priv)
{
	int i, err = 0;

	svio_wr(priv, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
	for (i = 0; i < priv->pairs && !err; i++)
		err = svio_hw_disable_pair(priv, i);
	/* What a function that is gone answers says nothing, and perhaps it only seems gone. */
	if (svio_hw_gone(priv)) {
		pci_clear_master(priv->pdev);
		return;
	}
	if (err)
		svio_hw_force_stop(priv, i - 1);
}

void svio_hw_log_errors(struct svio_priv *priv)
{
	u32 pair, dir, state;

	for (pair = 0; pair < priv->pairs; pair++) {
		for (dir = SVIO_SEND; dir <= SVIO_RECEIVE; dir++) {
			state = svio_rd(priv, SVIO_QUEUE_REG(pair, dir, SVIO_QUEUE_STATE));
			if (SVIO_QUEUE_STATE_OF(state) != SVIO_QUEUE_ERROR || !net_ratelimit())
				continue;
			netdev_err(priv->netdev, "%s queue %u in error at position %u: %s (%u)\n",
				   dir == SVIO_SEND ? "send" : "receive", pair,
				   svio_rd(priv, SVIO_QUEUE_REG(pair, dir, SVIO_QUEUE_POSITION)),
				   svio_queue_error(state), SVIO_QUEUE_ERROR_OF(state));
		}
	}
}
