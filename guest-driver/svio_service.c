// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: what needs process context: receive mode, events, reset */
#include <linux/rtnetlink.h>

#include "svio.h"

/* ---- receive mode ---- */

/* Copies the group addresses. Returns how many, or -1 if they are too many. */
static int svio_snapshot_multicast(struct svio_priv *priv)
{
	struct netdev_hw_addr *ha;
	int count = 0;

	if (netdev_mc_count(priv->netdev) > SVIO_MULTICAST_MAX)
		return -1;
	netdev_for_each_mc_addr(ha, priv->netdev)
		ether_addr_copy(priv->mc_list + count++ * ETH_ALEN, ha->addr);
	return count;
}

static void svio_apply_rx_mode(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	u32 flags = 0;
	int count = 0, err = 0;

	netif_addr_lock_bh(netdev);
	if (netdev->flags & IFF_PROMISC)
		flags |= SVIO_RX_PROMISC;
	if (netdev->flags & IFF_ALLMULTI || !(priv->features & SVIO_F_MULTICAST))
		flags |= SVIO_RX_ALL_MULTICAST;
	else
		count = svio_snapshot_multicast(priv);
	netif_addr_unlock_bh(netdev);

	if (count < 0) {
		flags |= SVIO_RX_ALL_MULTICAST;
		count = 0;
	}
	/* The filter is filled before the mode relies on it. */
	if (!(flags & SVIO_RX_ALL_MULTICAST))
		err = svio_mbox_multicast(priv, priv->mc_list, count);
	if (!err)
		err = svio_mbox_rx_mode(priv, flags);
	if (err == -EPERM && flags) {
		netdev_warn(netdev, "management does not allow receive mode %#x\n", flags);
		err = svio_mbox_rx_mode(priv, 0);
	}
	if (err && err != -ENODEV)
		netdev_warn(netdev, "receive mode %#x not set: %d\n", flags, err);
}

/* ---- reset, in the service task ---- */

/* From any context. */
void svio_request_reset(struct svio_priv *priv)
{
	set_bit(SVIO_WANT_RESET, &priv->state);
	mod_delayed_work(system_wq, &priv->service, 0);
}

/* Management's word: it is in force already. */
static void svio_take_mac(struct svio_priv *priv, const u8 *mac)
{
	struct net_device *netdev = priv->netdev;

	if (!is_valid_ether_addr(mac) || ether_addr_equal(mac, netdev->dev_addr))
		return;
	netdev_info(netdev, "management set the MAC address %pM\n", mac);
	eth_hw_addr_set(netdev, mac);
	call_netdevice_notifiers(NETDEV_CHANGEADDR, netdev);
}

static bool svio_perm_mac_changed(struct svio_priv *priv)
{
	u8 mac[ETH_ALEN] __aligned(2);

	svio_hw_read_mac(priv, mac);
	if (!is_valid_ether_addr(mac) || ether_addr_equal(mac, priv->netdev->perm_addr))
		return false;
	ether_addr_copy(priv->netdev->perm_addr, mac);
	return true;
}

/* The user's own choice, unless management has meanwhile made another, or does not allow it any more. */
static void svio_restore_mac(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	int err = -EPERM;

	if (!svio_perm_mac_changed(priv)) {
		if (ether_addr_equal(netdev->dev_addr, netdev->perm_addr))
			return;
		err = svio_mbox_set_mac(priv, netdev->dev_addr);
		if (!err)
			return;
		netdev_warn(netdev, "MAC address %pM not set: %d\n", netdev->dev_addr, err);
	}
	if (err == -EPERM)
		svio_take_mac(priv, netdev->perm_addr);
}

/*
 * What the device has forgotten in a reset, but for the receive mode: before its
 * registration a net device has no lock for its addresses, and when it is opened
 * the stack tells the mode.
 */
int svio_restore(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	int err;

	svio_restore_mac(priv);
	err = svio_apply_rss(priv);
	if (!err)
		err = svio_apply_offloads(priv);
	if (err)
		return err;
	err = svio_mbox_set_mtu(priv, netdev->mtu);
	return err == -EOPNOTSUPP ? 0 : err;
}

/* Brings the function from any state to what the net device wants. Under RTNL. */
int svio_revive(struct svio_priv *priv)
{
	int err;

	svio_admin_forget(priv);
	err = svio_hw_init(priv);
	if (err)
		return err;
	priv->vif_id = svio_vif_id(priv);
	svio_admin_start(priv);
	err = svio_restore(priv);
	if (err)
		return err;
	svio_apply_rx_mode(priv);
	return test_bit(SVIO_OPEN, &priv->state) ? svio_up(priv) : 0;
}

static void svio_reset(struct svio_priv *priv)
{
	int err;

	atomic64_inc(&priv->resets);
	priv->last_reset = jiffies;
	netif_warn(priv, timer, priv->netdev, "resetting the VIF\n");
	svio_down(priv);
	err = svio_revive(priv);
	/* Asked for by the work of this very reset: the result says it better. */
	clear_bit(SVIO_WANT_RESET, &priv->state);
	if (!err) {
		priv->reset_failures = 0;
		netif_device_attach(priv->netdev);
		return;
	}
	netif_device_detach(priv->netdev);
	netif_carrier_off(priv->netdev);
	if (++priv->reset_failures < SVIO_RESET_TRIES && !test_bit(SVIO_GONE, &priv->state)) {
		netdev_err(priv->netdev, "reset failed (%d), trying again\n", err);
		svio_request_reset(priv);
	} else {
		netdev_err(priv->netdev, "reset failed (%d), giving up\n", err);
		set_bit(SVIO_DETACHED, &priv->state);
	}
}

/* Management changed the VIF: take over what it says. */
static void svio_apply_config(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	struct svio_vif_info info;
	u32 mtu_max;
	int err;

	err = svio_mbox_identify(priv, &info);
	if (err) {
		netdev_warn(netdev, "the changed configuration cannot be read: %d\n", err);
		return;
	}
	mtu_max = min_t(u32, le32_to_cpu(info.mtu_max), netdev->max_mtu);
	if (mtu_max >= ETH_MIN_MTU && netdev->mtu > mtu_max)
		dev_set_mtu(netdev, mtu_max);
	svio_perm_mac_changed(priv);
	svio_take_mac(priv, info.mac);
	if (le16_to_cpu(info.vlan) != priv->vlan) {
		priv->vlan = le16_to_cpu(info.vlan);
		netdev_info(netdev, "management's VLAN: %u, priority %u\n",
			    priv->vlan & SVIO_VLAN_VID,
			    priv->vlan >> SVIO_VLAN_PRIORITY_SHIFT);
	}
}

static void svio_tell_qos(struct svio_priv *priv)
{
	struct svio_vif_info info;

	if (!svio_mbox_identify(priv, &info))
		netdev_info(priv->netdev, "management grants %u to %u Mb/s (0: no limit), weight %u\n",
			    le32_to_cpu(info.min_mbps), le32_to_cpu(info.max_mbps),
			    le32_to_cpu(info.weight));
}

static void svio_handle_events(struct svio_priv *priv)
{
	u32 events = atomic_xchg(&priv->events, 0);

	if (events & SVIO_EVENT_QUEUE_ERROR) {
		svio_hw_log_errors(priv);
		set_bit(SVIO_WANT_RESET, &priv->state);
	}
	if (events & SVIO_EVENT_CONFIG)
		svio_apply_config(priv);
	if (events & SVIO_EVENT_QOS)
		svio_tell_qos(priv);
	if (events & SVIO_EVENT_LINK && netif_running(priv->netdev))
		svio_update_carrier(priv);
}

/*
 * All that needs process context, under RTNL: so it meets neither open and stop
 * nor ethtool nor a PCI reset half way.
 */
void svio_service(struct work_struct *work)
{
	struct svio_priv *priv = container_of(work, struct svio_priv, service.work);
	unsigned long earliest;

	rtnl_lock();
	if (svio_slot_check(priv) || test_bit(SVIO_DETACHED, &priv->state) ||
	    priv->netdev->reg_state != NETREG_REGISTERED)
		goto out;
	if (svio_hw_gone(priv)) {
		netdev_err(priv->netdev, "the device is gone\n");
		svio_down(priv);
		netif_carrier_off(priv->netdev);
		netif_device_detach(priv->netdev);
		set_bit(SVIO_DETACHED, &priv->state);
		goto out;
	}
	if (svio_rd(priv, SVIO_REG_STATUS) & SVIO_STATUS_FAILED)
		set_bit(SVIO_WANT_RESET, &priv->state);
	svio_handle_events(priv);
	if (test_bit(SVIO_WANT_RESET, &priv->state)) {
		/* A device that fails at once must not keep a CPU and RTNL busy. */
		earliest = priv->last_reset + HZ;
		if (time_after_eq(jiffies, earliest)) {
			clear_bit(SVIO_WANT_RESET, &priv->state);
			svio_reset(priv);
		} else {
			mod_delayed_work(system_wq, &priv->service, earliest - jiffies);
		}
	}
	if (test_and_clear_bit(SVIO_WANT_RX_MODE, &priv->state))
		svio_apply_rx_mode(priv);
out:
	rtnl_unlock();
}

/* An allocation failed: NAPI tries again, see svio_rx_fill(). */
void svio_refill(struct work_struct *work)
{
	struct svio_priv *priv = container_of(work, struct svio_priv, refill.work);
	int i;

	for (i = 0; i < priv->pairs; i++)
		svio_napi_kick(&priv->pair[i]);
}
