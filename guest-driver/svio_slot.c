// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * svio VIF driver: a function is a slot, and management may create a VIF in it
 * or take it away at any time (SPEC 8). Without one the driver stays bound and
 * waits; the net device comes and goes with the VIF, by probing again.
 */
#include "svio.h"

#define SVIO_SLOT_WAIT_US (2 * USEC_PER_SEC)
#define SVIO_SLOT_POLL (HZ / 5)

struct svio_reprobe {
	struct work_struct work;
	struct pci_dev *pdev;
};

static struct workqueue_struct *svio_slot_wq;

int svio_slot_init(void)
{
	svio_slot_wq = alloc_workqueue("svio-slot", 0, 0);
	return svio_slot_wq ? 0 : -ENOMEM;
}

void svio_slot_exit(void)
{
	destroy_workqueue(svio_slot_wq);
}

static void svio_reprobe(struct work_struct *work)
{
	struct svio_reprobe *again = container_of(work, struct svio_reprobe, work);

	if (device_reprobe(&again->pdev->dev) < 0)
		dev_err(&again->pdev->dev, "not probed again\n");
	pci_dev_put(again->pdev);
	kfree(again);
}

/* Not from the service task itself, which removal waits for. */
void svio_probe_again(struct svio_priv *priv)
{
	struct svio_reprobe *again;

	if (test_and_set_bit(SVIO_REPROBING, &priv->state))
		return;
	again = kmalloc(sizeof(*again), GFP_KERNEL);
	if (!again) {
		clear_bit(SVIO_REPROBING, &priv->state);
		return;
	}
	again->pdev = pci_dev_get(priv->pdev);
	INIT_WORK(&again->work, svio_reprobe);
	queue_work(svio_slot_wq, &again->work);
}

u64 svio_vif_id(struct svio_priv *priv)
{
	return (u64)svio_rd(priv, SVIO_REG_VIF_ID_HI) << 32 | svio_rd(priv, SVIO_REG_VIF_ID_LO);
}

/* Is there a VIF that the net device, as it was made, can go on with? */
bool svio_slot_fits(struct svio_priv *priv)
{
	return svio_rd(priv, SVIO_REG_VIF_KIND) == SVIO_KIND_NET &&
	       svio_rd(priv, SVIO_REG_QUEUE_PAIRS) >= priv->pairs_max &&
	       svio_rd(priv, SVIO_REG_QUEUE_SIZE_MAX) >= max(priv->tx_size, priv->rx_size);
}

/* After a reset that may have taken an automatic VIF away: its successor comes a moment later. */
void svio_slot_await(struct svio_priv *priv)
{
	u32 kind;

	if (readl_poll_timeout(priv->regs + SVIO_REG_VIF_KIND, kind, kind != SVIO_KIND_NONE,
			       1000, SVIO_SLOT_WAIT_US))
		dev_warn(&priv->pdev->dev, "there is no VIF in this slot any more\n");
}

/* Listen for a VIF. From any state of the function. */
int svio_slot_listen(struct svio_priv *priv)
{
	int err;

	err = svio_hw_reset(priv);
	if (err)
		return err;
	pci_set_master(priv->pdev);
	if (priv->has_vectors)
		svio_wr(priv, SVIO_REG_EVENT_VECTOR, 0);
	/* One may have been created before the vector was set. */
	mod_delayed_work(system_wq, &priv->service, 0);
	return 0;
}

/* In the service task. True if there is nothing else to do for this function now. */
bool svio_slot_check(struct svio_priv *priv)
{
	if (test_bit(SVIO_REPROBING, &priv->state))
		return true;
	if (test_bit(SVIO_DETACHED, &priv->state) || svio_hw_gone(priv))
		return false;
	if (test_bit(SVIO_EMPTY, &priv->state)) {
		if (svio_rd(priv, SVIO_REG_VIF_KIND) != SVIO_KIND_NONE)
			svio_probe_again(priv);
		else if (!priv->has_vectors)
			queue_delayed_work(system_wq, &priv->service, SVIO_SLOT_POLL);
		return true;
	}
	if (!svio_slot_fits(priv)) {
		dev_info(&priv->pdev->dev, "management took the VIF away\n");
		svio_probe_again(priv);
		return true;
	}
	/* Another VIF than the one that was reset under our hands. */
	if (svio_vif_id(priv) != priv->vif_id)
		set_bit(SVIO_WANT_RESET, &priv->state);
	return false;
}
