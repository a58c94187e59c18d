// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: what takes the device away for a while: suspend, function-level reset */
#include <linux/pm.h>
#include <linux/rtnetlink.h>

#include "svio.h"

/* Afterwards nothing touches the device until svio_attach(). Under RTNL. */
void svio_detach(struct svio_priv *priv)
{
	if (!test_bit(SVIO_EMPTY, &priv->state))
		netif_device_detach(priv->netdev);
	svio_down(priv);
	set_bit(SVIO_DETACHED, &priv->state);
}

/* Restores all that the function has forgotten; it may be another start of the machine. Under RTNL. */
void svio_attach(struct svio_priv *priv)
{
	clear_bit(SVIO_DETACHED, &priv->state);
	clear_bit(SVIO_GONE, &priv->state);
	priv->reset_failures = 0;
	if (test_bit(SVIO_EMPTY, &priv->state)) {
		svio_slot_listen(priv);
		return;
	}
	svio_slot_await(priv);
	if (svio_revive(priv))
		svio_request_reset(priv);
	else
		netif_device_attach(priv->netdev);
}

/* Shutdown or sleep: the device forgets every address, as memory may be rewritten meanwhile. */
void svio_power_down(struct svio_priv *priv)
{
	rtnl_lock();
	svio_detach(priv);
	if (!svio_hw_gone(priv))
		svio_hw_reset(priv);
	pci_clear_master(priv->pdev);
	rtnl_unlock();
}

static int svio_suspend(struct device *dev)
{
	struct svio_priv *priv = dev_get_drvdata(dev);

	svio_sriov_prepare_sleep(priv);
	svio_power_down(priv);
	return 0;
}

static int svio_resume(struct device *dev)
{
	struct svio_priv *priv = dev_get_drvdata(dev);

	rtnl_lock();
	svio_attach(priv);
	rtnl_unlock();
	svio_sriov_wake(priv);
	/* What was asked for meanwhile. */
	mod_delayed_work(system_wq, &priv->service, 0);
	return 0;
}

/* Suspend to RAM, to idle and to disk alike. */
DEFINE_SIMPLE_DEV_PM_OPS(svio_pm_ops, svio_suspend, svio_resume);
