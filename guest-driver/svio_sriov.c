// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * svio PF driver: SR-IOV. VFs come with sriov_numvfs; what "ip link set PF vf N"
 * asks for are commands of management for the VIF in slot N + 1 (SPEC 8).
 */
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "svio.h"

/* ---- VFs that come and go ---- */

/* The PCI core calls it with the PF's device lock held. Whether VFs carry a VIF is the device's matter. */
int svio_sriov_configure(struct pci_dev *pdev, int count)
{
	int err;

	if (!count) {
		if (pci_vfs_assigned(pdev)) {
			dev_warn(&pdev->dev, "VFs are assigned to guests, SR-IOV stays enabled\n");
			return -EPERM;
		}
		pci_disable_sriov(pdev);
		return 0;
	}
	err = pci_enable_sriov(pdev, count);
	return err ?: count;
}

/* The PF goes, and its VFs before it: the PCI core does not survive VFs without a PF. */
void svio_sriov_remove(struct svio_priv *priv)
{
	struct pci_dev *pdev = priv->pdev;

	if (!pci_num_vf(pdev))
		return;
	if (pci_vfs_assigned(pdev))
		dev_warn(&pdev->dev, "VFs are assigned to guests, SR-IOV stays enabled\n");
	else
		pci_disable_sriov(pdev);
}

/* ---- ip link set PF vf N ... Under RTNL. ---- */

/* A command for the VIF of a VF. */
static int svio_vf_command(struct net_device *netdev, int vf, u16 opcode,
			   struct svio_command *cmd)
{
	struct svio_priv *priv = netdev_priv(netdev);

	if (!svio_admin_has(priv, SVIO_OPTION_MANAGEMENT))
		return -EOPNOTSUPP;
	if (vf < 0 || vf >= pci_num_vf(priv->pdev))
		return -EINVAL;
	memset(cmd, 0, sizeof(*cmd));
	cmd->opcode = cpu_to_le16(opcode);
	cmd->slot = cpu_to_le32(vf + 1);
	return 0;
}

static int svio_vf_set(struct net_device *netdev, int vf, u32 mask,
		       struct svio_vif_config *config)
{
	struct svio_command cmd;
	int err;

	err = svio_vf_command(netdev, vf, SVIO_OP_VIF_RECONFIGURE, &cmd);
	if (err)
		return err;
	config->mask = cpu_to_le32(mask);
	err = svio_admin_command(netdev_priv(netdev), &cmd, config, sizeof(*config), NULL, 0);
	if (err < 0) {
		netdev_info(netdev, "VF %d: management refuses (%d)\n", vf, err);
		return err;
	}
	return 0;
}

static int svio_vf_query(struct net_device *netdev, int vf, struct svio_vif_config *config)
{
	struct svio_command cmd;
	int err;

	err = svio_vf_command(netdev, vf, SVIO_OP_VIF_QUERY, &cmd);
	if (err)
		return err;
	err = svio_admin_command(netdev_priv(netdev), &cmd, NULL, 0, config, sizeof(*config));
	if (err < 0)
		return err;
	return err < (int)sizeof(*config) ? -EIO : 0;
}

int svio_set_vf_mac(struct net_device *netdev, int vf, u8 *mac)
{
	struct svio_vif_config config = {};

	if (!is_valid_ether_addr(mac))
		return -EINVAL;
	ether_addr_copy(config.mac, mac);
	return svio_vf_set(netdev, vf, SVIO_CFG_MAC, &config);
}

/* With a tag of management's there is none of the guest's own. */
int svio_set_vf_vlan(struct net_device *netdev, int vf, u16 vlan, u8 qos, __be16 proto)
{
	struct svio_vif_config config = {};

	if (proto != htons(ETH_P_8021Q))
		return -EPROTONOSUPPORT;
	if (vlan >= VLAN_VID_MASK || qos > 7 || (!vlan && qos))
		return -EINVAL;
	config.vlan = cpu_to_le16(vlan | qos << SVIO_VLAN_PRIORITY_SHIFT);
	config.guest_tagging = !vlan;
	return svio_vf_set(netdev, vf, SVIO_CFG_VLAN | SVIO_CFG_GUEST_TAGGING, &config);
}

int svio_set_vf_rate(struct net_device *netdev, int vf, int min_rate, int max_rate)
{
	struct svio_vif_config config = {};

	if (!svio_admin_has(netdev_priv(netdev), SVIO_OPTION_QOS))
		return -EOPNOTSUPP;
	if (min_rate < 0 || max_rate < 0)
		return -EINVAL;
	config.min_mbps = cpu_to_le32(min_rate);
	config.max_mbps = cpu_to_le32(max_rate);
	return svio_vf_set(netdev, vf, SVIO_CFG_RATE, &config);
}

int svio_set_vf_spoofchk(struct net_device *netdev, int vf, bool on)
{
	struct svio_vif_config config = { .spoof_check = on };

	return svio_vf_set(netdev, vf, SVIO_CFG_SPOOF_CHECK, &config);
}

/* Linux has one word for what the device keeps apart. */
int svio_set_vf_trust(struct net_device *netdev, int vf, bool on)
{
	struct svio_vif_config config = { .trust = on, .allow_promisc = on };

	return svio_vf_set(netdev, vf, SVIO_CFG_TRUST | SVIO_CFG_PROMISC, &config);
}

int svio_set_vf_link_state(struct net_device *netdev, int vf, int state)
{
	struct svio_vif_config config = {};

	switch (state) {
	case IFLA_VF_LINK_STATE_AUTO:
		config.link = SVIO_LINK_AUTO;
		break;
	case IFLA_VF_LINK_STATE_ENABLE:
		config.link = SVIO_LINK_UP;
		break;
	case IFLA_VF_LINK_STATE_DISABLE:
		config.link = SVIO_LINK_DOWN;
		break;
	default:
		return -EINVAL;
	}
	return svio_vf_set(netdev, vf, SVIO_CFG_LINK, &config);
}

int svio_get_vf_config(struct net_device *netdev, int vf, struct ifla_vf_info *info)
{
	struct svio_vif_config config;
	u16 vlan;
	int err;

	info->vf = vf;
	err = svio_vf_query(netdev, vf, &config);
	/* Of a slot without VIF nothing but its number is told: tools want one entry for each VF. */
	if (err == -ENOENT || err == -EOPNOTSUPP)
		return 0;
	if (err)
		return err;
	vlan = le16_to_cpu(config.vlan);
	ether_addr_copy(info->mac, config.mac);
	info->vlan = vlan & SVIO_VLAN_VID;
	info->qos = vlan >> SVIO_VLAN_PRIORITY_SHIFT;
	info->vlan_proto = htons(ETH_P_8021Q);
	info->min_tx_rate = le32_to_cpu(config.min_mbps);
	info->max_tx_rate = le32_to_cpu(config.max_mbps);
	info->spoofchk = config.spoof_check;
	info->trusted = config.trust;
	info->linkstate = config.link == SVIO_LINK_UP ? IFLA_VF_LINK_STATE_ENABLE :
			  config.link == SVIO_LINK_DOWN ? IFLA_VF_LINK_STATE_DISABLE :
							  IFLA_VF_LINK_STATE_AUTO;
	return 0;
}

/* Sums of the device's drops by direction. What was not addressed to the VIF is no loss. */
static void svio_sum_drops(const __le64 *counter, u64 *rx, u64 *tx)
{
	static const char * const names[] = { SVIO_STAT_NAMES };
	int i;

	for (i = 0; i < SVIO_STAT_COUNT; i++) {
		if (i == SVIO_STAT_DROP_RX_FILTER)
			continue;
		if (!strncmp(names[i], "drop_rx_", 8))
			*rx += le64_to_cpu(counter[i]);
		else if (!strncmp(names[i], "drop_tx_", 8))
			*tx += le64_to_cpu(counter[i]);
	}
}

int svio_get_vf_stats(struct net_device *netdev, int vf, struct ifla_vf_stats *stats)
{
	struct svio_priv *priv = netdev_priv(netdev);
	__le64 counter[SVIO_STAT_COUNT];
	struct svio_command cmd;
	int len;

	memset(stats, 0, sizeof(*stats));
	len = svio_vf_command(netdev, vf, SVIO_OP_STATS, &cmd);
	if (len)
		return len;
	cmd.u.stats.pair = cpu_to_le32(SVIO_STATS_VIF);
	/* What an older device does not count reads as 0. */
	len = svio_admin_command(priv, &cmd, NULL, 0, counter, sizeof(counter));
	if (len < 0)
		return len;
	stats->rx_packets = le64_to_cpu(counter[SVIO_STAT_RX_FRAMES]);
	stats->rx_bytes = le64_to_cpu(counter[SVIO_STAT_RX_BYTES]);
	stats->tx_packets = le64_to_cpu(counter[SVIO_STAT_TX_FRAMES]);
	stats->tx_bytes = le64_to_cpu(counter[SVIO_STAT_TX_BYTES]);
	stats->broadcast = le64_to_cpu(counter[SVIO_STAT_RX_BROADCAST]);
	stats->multicast = le64_to_cpu(counter[SVIO_STAT_RX_MULTICAST]);
	svio_sum_drops(counter, &stats->rx_dropped, &stats->tx_dropped);
	return 0;
}

/* ---- a reset or a sleep of the PF, which takes VF Enable and with it automatic VIFs away ---- */

#define SVIO_CFG_KEPT \
	(SVIO_CFG_MAC | SVIO_CFG_VLAN | SVIO_CFG_TRUST | SVIO_CFG_SPOOF_CHECK | SVIO_CFG_PROMISC | \
	 SVIO_CFG_MULTICAST | SVIO_CFG_LINK | SVIO_CFG_GUEST_TAGGING | SVIO_CFG_RATE)

/* What management has set for each VF, while it can still be asked. Under RTNL. */
static void svio_sriov_save(struct svio_priv *priv)
{
	int vf, count = pci_num_vf(priv->pdev);

	kfree(priv->vf_saved);
	priv->vf_saved = NULL;
	if (!count || !svio_admin_has(priv, SVIO_OPTION_MANAGEMENT))
		return;
	priv->vf_saved = kcalloc(count, sizeof(*priv->vf_saved), GFP_KERNEL);
	for (vf = 0; priv->vf_saved && vf < count; vf++)
		if (svio_vf_query(priv->netdev, vf, &priv->vf_saved[vf]))
			memset(&priv->vf_saved[vf], 0, sizeof(*priv->vf_saved));
}

/* A VIF that is another one than before gets what the former had. Under RTNL. */
static void svio_sriov_restore(struct svio_priv *priv)
{
	int vf, count = pci_num_vf(priv->pdev);
	u32 mask = SVIO_CFG_KEPT;
	struct svio_vif_config now;

	if (!priv->vf_saved)
		return;
	if (!svio_admin_has(priv, SVIO_OPTION_QOS))
		mask &= ~SVIO_CFG_RATE;
	for (vf = 0; vf < count; vf++) {
		struct svio_vif_config *saved = &priv->vf_saved[vf];

		if (saved->id && !svio_vf_query(priv->netdev, vf, &now) && now.id != saved->id)
			svio_vf_set(priv->netdev, vf, mask, saved);
	}
	kfree(priv->vf_saved);
	priv->vf_saved = NULL;
}

/* Calls `what` for each VF that this driver drives, with the VF's device lock held. */
static void svio_visit_vfs(struct pci_dev *pdev, void (*what)(struct pci_dev *vf))
{
	struct pci_dev *vf = NULL;

	while ((vf = pci_get_device(SVIO_PCI_VENDOR, SVIO_PCI_DEVICE_VF, vf))) {
		if (!vf->is_virtfn || pci_physfn(vf) != pdev)
			continue;
		device_lock(&vf->dev);
		if (vf->dev.driver == pdev->dev.driver)
			what(vf);
		device_unlock(&vf->dev);
	}
}

static void svio_vf_prepare(struct pci_dev *vf)
{
	svio_reset_prepare(vf);
	pci_save_state(vf);
}

static void svio_vf_done(struct pci_dev *vf)
{
	/* Their own command words and MSI-X tables: the PCI core looks after those of the PF alone. */
	pci_restore_state(vf);
	svio_reset_done(vf);
}

/* A function-level reset of the PF is one of all its VFs. Without RTNL. */
void svio_sriov_prepare_reset(struct svio_priv *priv)
{
	if (priv->pdev->is_virtfn || !pci_num_vf(priv->pdev))
		return;
	svio_visit_vfs(priv->pdev, svio_vf_prepare);
	svio_sriov_prepare_sleep(priv);
}

void svio_sriov_reset_done(struct svio_priv *priv)
{
	if (priv->pdev->is_virtfn || !pci_num_vf(priv->pdev))
		return;
	svio_sriov_wake(priv);
	svio_visit_vfs(priv->pdev, svio_vf_done);
}

/* VFs sleep and wake by themselves. Without RTNL. */
void svio_sriov_prepare_sleep(struct svio_priv *priv)
{
	rtnl_lock();
	svio_sriov_save(priv);
	rtnl_unlock();
}

void svio_sriov_wake(struct svio_priv *priv)
{
	rtnl_lock();
	svio_sriov_restore(priv);
	rtnl_unlock();
}
