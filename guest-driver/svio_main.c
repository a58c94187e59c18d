// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: probe and remove, net device operations, reset */
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <xen/xen.h>

#include "svio.h"

#define SVIO_MSG_DEFAULT \
	(NETIF_MSG_DRV | NETIF_MSG_PROBE | NETIF_MSG_LINK | NETIF_MSG_TIMER | NETIF_MSG_RX_ERR | \
	 NETIF_MSG_TX_ERR | NETIF_MSG_HW)

static int debug = -1;
module_param(debug, int, 0444);
MODULE_PARM_DESC(debug, "message level: the lowest so many bits of ethtool's msglvl, -1 for the default");

/* ---- interrupts ---- */

static irqreturn_t svio_pair_irq(int irq, void *data)
{
	struct svio_pair *pair = data;

	atomic64_inc(&pair->irqs);
	napi_schedule_irqoff(&pair->napi);
	return IRQ_HANDLED;
}

static irqreturn_t svio_event_irq(int irq, void *data)
{
	struct svio_priv *priv = data;
	u32 events = svio_rd(priv, SVIO_REG_EVENT);

	atomic64_inc(&priv->event_irqs);
	svio_admin_irq(priv);
	if (events == U32_MAX || !events)
		return IRQ_HANDLED;
	svio_wr(priv, SVIO_REG_EVENT, events);
	atomic_or(events, &priv->events);
	mod_delayed_work(system_wq, &priv->service, 0);
	return IRQ_HANDLED;
}

int svio_request_pair_irq(struct svio_pair *pair)
{
	struct svio_priv *priv = pair->priv;
	int irq = pci_irq_vector(priv->pdev, pair->index + 1);
	int err;

	snprintf(pair->irq_name, sizeof(pair->irq_name), "%s-%d",
		 priv->netdev->name, pair->index);
	err = request_irq(irq, svio_pair_irq, 0, pair->irq_name, pair);
	if (err) {
		netdev_err(priv->netdev, "no interrupt for queue pair %d: %d\n",
			   pair->index, err);
		return err;
	}
	/* A hint is all it is: with one pair the system's own choice is as good. */
	if (priv->pairs_max > 1)
		irq_set_affinity_and_hint(irq, cpumask_of(cpumask_local_spread(pair->index,
					  dev_to_node(&priv->pdev->dev))));
	return 0;
}

void svio_free_pair_irq(struct svio_pair *pair)
{
	int irq = pci_irq_vector(pair->priv->pdev, pair->index + 1);

	irq_update_affinity_hint(irq, NULL);
	free_irq(irq, pair);
}

static void svio_free_pair_irqs(struct svio_priv *priv, int count)
{
	while (count--)
		svio_free_pair_irq(&priv->pair[count]);
}

static int svio_request_pair_irqs(struct svio_priv *priv)
{
	int i, err;

	for (i = 0; i < priv->pairs; i++) {
		err = svio_request_pair_irq(&priv->pair[i]);
		if (err) {
			svio_free_pair_irqs(priv, i);
			return err;
		}
	}
	return 0;
}

/* ---- up and down: everything but memory and interrupts. Under RTNL. ---- */

void svio_update_carrier(struct svio_priv *priv)
{
	bool up = svio_rd(priv, SVIO_REG_STATUS) & SVIO_STATUS_LINK_UP;

	if (up == netif_carrier_ok(priv->netdev))
		return;
	if (up)
		netif_carrier_on(priv->netdev);
	else
		netif_carrier_off(priv->netdev);
	if (netif_running(priv->netdev))
		netif_info(priv, link, priv->netdev, "link is %s\n", up ? "up" : "down");
}

/* The device's queues run. */
void svio_pair_up(struct svio_pair *pair)
{
	napi_enable(&pair->napi);
	svio_queues_set_napi(pair->priv->netdev, pair->index, &pair->napi);
	/* A signal that came before napi_enable() was lost. */
	svio_napi_kick(pair);
}

void svio_pair_down(struct svio_pair *pair)
{
	svio_queues_set_napi(pair->priv->netdev, pair->index, NULL);
	napi_disable(&pair->napi);
	svio_dim_stop(&pair->rx);
}

int svio_up(struct svio_priv *priv)
{
	int i, err;

	err = svio_hw_start_queues(priv);
	if (err) {
		svio_hw_stop_queues(priv);
		return err;
	}
	local_bh_disable();
	for (i = 0; i < priv->pairs; i++)
		svio_rx_fill(&priv->pair[i].rx);
	local_bh_enable();

	set_bit(SVIO_UP, &priv->state);
	for (i = 0; i < priv->pairs; i++)
		svio_pair_up(&priv->pair[i]);
	svio_update_carrier(priv);
	netif_tx_wake_all_queues(priv->netdev);
	return 0;
}

/* Leaves cleared rings behind, so that svio_up() can follow after a reset. */
void svio_down(struct svio_priv *priv)
{
	int i;

	if (!test_and_clear_bit(SVIO_UP, &priv->state))
		return;
	/* NAPI first: it could wake a queue that we have just stopped. */
	for (i = 0; i < priv->pairs; i++)
		svio_pair_down(&priv->pair[i]);
	cancel_delayed_work_sync(&priv->refill);
	netif_trans_update(priv->netdev);
	netif_tx_disable(priv->netdev);

	svio_hw_stop_queues(priv);
	for (i = 0; i < priv->pairs; i++) {
		svio_pair_purge(&priv->pair[i]);
		svio_pair_clear(&priv->pair[i]);
	}
}

static void svio_free_pairs(struct svio_priv *priv, int count)
{
	while (count--)
		svio_pair_free(&priv->pair[count]);
}

static int svio_alloc_pairs(struct svio_priv *priv)
{
	int i, err;

	for (i = 0; i < priv->pairs; i++) {
		err = svio_pair_alloc(&priv->pair[i]);
		if (err) {
			svio_free_pairs(priv, i);
			return err;
		}
	}
	return 0;
}

int svio_open(struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int err;

	err = svio_alloc_pairs(priv);
	if (err)
		return err;
	err = svio_request_pair_irqs(priv);
	if (err)
		goto free_pairs;
	err = svio_up(priv);
	if (err)
		goto free_irqs;
	set_bit(SVIO_OPEN, &priv->state);
	return 0;

free_irqs:
	svio_free_pair_irqs(priv, priv->pairs);
free_pairs:
	svio_free_pairs(priv, priv->pairs);
	return err;
}

int svio_stop(struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);

	if (!test_and_clear_bit(SVIO_OPEN, &priv->state))
		return 0;
	svio_down(priv);
	netif_carrier_off(netdev);
	svio_free_pair_irqs(priv, priv->pairs);
	svio_free_pairs(priv, priv->pairs);
	return 0;
}

/* ---- net device operations ---- */

static void svio_set_rx_mode(struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);

	set_bit(SVIO_WANT_RX_MODE, &priv->state);
	mod_delayed_work(system_wq, &priv->service, 0);
}

static void svio_tx_timeout(struct net_device *netdev, unsigned int txqueue)
{
	struct svio_priv *priv = netdev_priv(netdev);
	struct svio_tx *tx = &priv->pair[txqueue].tx;

	atomic64_inc(&priv->tx_timeouts);
	netif_warn(priv, tx_err, netdev, "send queue %u: posted %u, completed %u, device says %u\n",
		   txqueue, tx->use, tx->clean, le32_to_cpu(READ_ONCE(tx->ring.event->done)));
	svio_request_reset(priv);
}

static int svio_set_mac_address(struct net_device *netdev, void *p)
{
	struct svio_priv *priv = netdev_priv(netdev);
	struct sockaddr *addr = p;
	int err;

	err = eth_prepare_mac_addr_change(netdev, p);
	if (err)
		return err;
	err = svio_mbox_set_mac(priv, addr->sa_data);
	if (err)
		return err;
	eth_commit_mac_addr_change(netdev, p);
	return 0;
}

/* Live: buffers that are posted later have the new size, chains bridge the change. */
static int svio_change_mtu(struct net_device *netdev, int mtu)
{
	int err;

	err = svio_mbox_set_mtu(netdev_priv(netdev), mtu);
	if (err && err != -EOPNOTSUPP)
		return err;
	WRITE_ONCE(netdev->mtu, mtu);
	return 0;
}

static void svio_pair_stats64(const struct svio_pair *pair, struct rtnl_link_stats64 *stats)
{
	const struct svio_tx *tx = &pair->tx;
	const struct svio_rx *rx = &pair->rx;
	u64 packets, bytes, dropped, multicast, length_errors;
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&rx->stats.sync);
		packets = u64_stats_read(&rx->stats.packets);
		bytes = u64_stats_read(&rx->stats.bytes);
		multicast = u64_stats_read(&rx->stats.multicast);
		dropped = u64_stats_read(&rx->stats.dropped);
		length_errors = u64_stats_read(&rx->stats.length_errors);
	} while (u64_stats_fetch_retry(&rx->stats.sync, start));
	stats->rx_packets += packets;
	stats->rx_bytes += bytes;
	stats->multicast += multicast;
	stats->rx_dropped += dropped;
	stats->rx_length_errors += length_errors;
	stats->rx_errors += length_errors;

	do {
		start = u64_stats_fetch_begin(&tx->done.sync);
		packets = u64_stats_read(&tx->done.packets);
		bytes = u64_stats_read(&tx->done.bytes);
	} while (u64_stats_fetch_retry(&tx->done.sync, start));
	stats->tx_packets += packets;
	stats->tx_bytes += bytes;

	do {
		start = u64_stats_fetch_begin(&tx->send.sync);
		dropped = u64_stats_read(&tx->send.dropped) + u64_stats_read(&tx->send.lost);
	} while (u64_stats_fetch_retry(&tx->send.sync, start));
	stats->tx_dropped += dropped;
}

static void svio_get_stats64(struct net_device *netdev, struct rtnl_link_stats64 *stats)
{
	struct svio_priv *priv = netdev_priv(netdev);
	int i;

	/* Also of those that are not in use any more: counters never go back. */
	for (i = 0; i < priv->pairs_max; i++)
		svio_pair_stats64(&priv->pair[i], stats);
}

static const struct net_device_ops svio_netdev_ops = {
	.ndo_open = svio_open,
	.ndo_stop = svio_stop,
	.ndo_start_xmit = svio_start_xmit,
	.ndo_set_rx_mode = svio_set_rx_mode,
	.ndo_features_check = svio_features_check,
	.ndo_fix_features = svio_fix_features,
	.ndo_set_features = svio_set_features,
	.ndo_set_mac_address = svio_set_mac_address,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_change_mtu = svio_change_mtu,
	.ndo_tx_timeout = svio_tx_timeout,
	.ndo_get_stats64 = svio_get_stats64,
	.ndo_bpf = svio_bpf,
	.ndo_xdp_xmit = svio_xdp_xmit,
	.ndo_set_vf_mac = svio_set_vf_mac,
	.ndo_set_vf_vlan = svio_set_vf_vlan,
	.ndo_set_vf_rate = svio_set_vf_rate,
	.ndo_set_vf_spoofchk = svio_set_vf_spoofchk,
	.ndo_set_vf_trust = svio_set_vf_trust,
	.ndo_set_vf_link_state = svio_set_vf_link_state,
	.ndo_get_vf_config = svio_get_vf_config,
	.ndo_get_vf_stats = svio_get_vf_stats,
};

/* ---- PCI resets: the administrator's FLR ---- */

void svio_reset_prepare(struct pci_dev *pdev)
{
	struct svio_priv *priv = pci_get_drvdata(pdev);

	svio_sriov_prepare_reset(priv);
	rtnl_lock();
	svio_detach(priv);
	rtnl_unlock();
}

void svio_reset_done(struct pci_dev *pdev)
{
	struct svio_priv *priv = pci_get_drvdata(pdev);

	rtnl_lock();
	svio_attach(priv);
	rtnl_unlock();
	svio_sriov_reset_done(priv);
}

static const struct pci_error_handlers svio_err_handler = {
	.reset_prepare = svio_reset_prepare,
	.reset_done = svio_reset_done,
};

/* ---- probe and remove ---- */

static void svio_init_pairs(struct svio_priv *priv)
{
	int i;

	for (i = 0; i < SVIO_MAX_QUEUE_PAIRS; i++) {
		struct svio_pair *pair = &priv->pair[i];

		pair->priv = priv;
		pair->index = i;
		pair->tx.priv = priv;
		pair->tx.bell = priv->regs + SVIO_BELL(i, SVIO_SEND);
		pair->rx.priv = priv;
		pair->rx.bell = priv->regs + SVIO_BELL(i, SVIO_RECEIVE);
		pair->rx.index = i;
		pair->rx.napi = &pair->napi;
		svio_dim_init(&pair->rx);
		u64_stats_init(&pair->stats.sync);
		u64_stats_init(&pair->tx.send.sync);
		u64_stats_init(&pair->tx.done.sync);
		u64_stats_init(&pair->rx.stats.sync);
	}
}

static int svio_setup_vectors(struct svio_priv *priv)
{
	struct device *dev = &priv->pdev->dev;
	int pairs, vectors, err;

	/*
	 * A PV guest of Xen has them once: Linux 6.12 gives MSI-X back as if it
	 * were MSI (xen_pv_teardown_msi_irqs()), and pciback then refuses it to
	 * whoever asks again. So none are spent on waiting.
	 */
	if (test_bit(SVIO_EMPTY, &priv->state) && xen_pv_domain() && !xen_initial_domain())
		return 0;
	pairs = clamp_t(u32, svio_rd(priv, SVIO_REG_QUEUE_PAIRS), 1, SVIO_MAX_QUEUE_PAIRS);
	if (test_bit(SVIO_EMPTY, &priv->state))
		pairs = 1;
	vectors = pci_alloc_irq_vectors(priv->pdev, 2, pairs + 1, PCI_IRQ_MSIX);
	if (vectors < 0) {
		dev_err(dev, "MSI-X with 2 vectors is needed and cannot be had: %d\n", vectors);
		return vectors;
	}
	pairs = min(pairs, vectors - 1);
	if (pairs > 1 && svio_mbox_queue_pairs(priv, pairs))
		pairs = 1;
	priv->pairs_max = pairs;
	/* More are there for ethtool -L. */
	priv->pairs = min_t(int, pairs, num_online_cpus());

	err = request_irq(pci_irq_vector(priv->pdev, 0), svio_event_irq, 0,
			  pci_name(priv->pdev), priv);
	if (err) {
		dev_err(dev, "no interrupt for events: %d\n", err);
		pci_free_irq_vectors(priv->pdev);
	}
	priv->has_vectors = !err;
	return err;
}

/* Nothing queues the service task once its interrupt is gone, but itself. */
static void svio_release_vectors(struct svio_priv *priv)
{
	if (priv->has_vectors)
		free_irq(pci_irq_vector(priv->pdev, 0), priv);
	cancel_delayed_work_sync(&priv->service);
	if (priv->has_vectors)
		pci_free_irq_vectors(priv->pdev);
}

static int svio_setup_sizes(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	u32 max = svio_rd(priv, SVIO_REG_QUEUE_SIZE_MAX);
	u32 hint = svio_rd(priv, SVIO_REG_QUEUE_SIZE_HINT);
	u32 mtu_max = svio_rd(priv, SVIO_REG_MTU_MAX);
	u32 room = PAGE_SIZE - SVIO_RX_HEADROOM - SVIO_RX_TAILROOM - ETH_HLEN - 2 * VLAN_HLEN;

	if (max < SVIO_QUEUE_MIN || max > SVIO_QUEUE_MAX || !is_power_of_2(max) ||
	    mtu_max < SVIO_MTU_MIN) {
		dev_err(&priv->pdev->dev, "the device offers queues of %u entries, MTU %u\n",
			max, mtu_max);
		return -EIO;
	}
	priv->ring_max = max;
	priv->tx_size = is_power_of_2(hint) ? clamp_t(u32, hint, SVIO_QUEUE_MIN, max) : max;
	priv->rx_size = priv->tx_size;
	priv->tx_moderation = SVIO_TX_FRAMES << 16 | SVIO_TX_USECS;

	netdev->min_mtu = SVIO_MTU_MIN;
	netdev->max_mtu = min_t(u32, mtu_max, SVIO_MTU_MAX);
	if (!(priv->features & SVIO_F_RX_CHAIN))
		netdev->max_mtu = min(netdev->max_mtu, room);
	priv->max_mtu = netdev->max_mtu;
	netdev->mtu = min_t(u32, ETH_DATA_LEN, netdev->max_mtu);
	return 0;
}

static void svio_setup_mac(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	u8 mac[ETH_ALEN] __aligned(2);

	svio_hw_read_mac(priv, mac);
	if (is_valid_ether_addr(mac)) {
		eth_hw_addr_set(netdev, mac);
		ether_addr_copy(netdev->perm_addr, mac);
		return;
	}
	eth_hw_addr_random(netdev);
	dev_warn(&priv->pdev->dev, "the device's MAC address %pM is invalid, using %pM\n",
		 mac, netdev->dev_addr);
}

static void svio_setup_netdev(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;

	netdev->netdev_ops = &svio_netdev_ops;
	netdev->ethtool_ops = &svio_ethtool_ops;
	netdev->watchdog_timeo = 5 * HZ;
	netdev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
	svio_setup_offloads(priv);
	svio_set_xdp_features(netdev);
}

/* PCI resources, and the proof that this is a VIF which we can drive. */
static int svio_setup_pci(struct svio_priv *priv)
{
	struct pci_dev *pdev = priv->pdev;
	u32 kind;
	int err;

	err = pci_enable_device_mem(pdev);
	if (err)
		return err;
	err = pci_request_mem_regions(pdev, SVIO_DRV_NAME);
	if (err)
		goto disable;
	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (err)
		goto release;
	err = -ENODEV;
	if (pci_resource_len(pdev, SVIO_BAR_REGS) < SVIO_BAR_REGS_SIZE) {
		dev_err(&pdev->dev, "BAR 0 is too small\n");
		goto release;
	}
	priv->regs = pci_ioremap_bar(pdev, SVIO_BAR_REGS);
	if (!priv->regs)
		goto release;
	err = svio_hw_identify(priv);
	if (err)
		goto unmap;
	kind = svio_rd(priv, SVIO_REG_VIF_KIND);
	if (kind == SVIO_KIND_NONE) {
		dev_info(&pdev->dev, "there is no VIF in this slot yet, waiting for one\n");
		set_bit(SVIO_EMPTY, &priv->state);
		return 0;
	}
	if (kind != SVIO_KIND_NET) {
		err = -ENODEV;
		dev_err(&pdev->dev, "the VIF is of kind %u, not a network interface\n", kind);
		goto unmap;
	}
	err = svio_hw_init(priv);
	priv->vif_id = svio_vif_id(priv);
	if (!err)
		return 0;

	pci_clear_master(pdev);
unmap:
	iounmap(priv->regs);
release:
	pci_release_mem_regions(pdev);
disable:
	pci_disable_device(pdev);
	return err;
}

static void svio_release_pci(struct svio_priv *priv)
{
	struct pci_dev *pdev = priv->pdev;

	/* So that the device has forgotten every address. */
	if (!svio_hw_gone(priv))
		svio_hw_reset(priv);
	pci_clear_master(pdev);
	iounmap(priv->regs);
	pci_release_mem_regions(pdev);
	pci_disable_device(pdev);
}

static int svio_alloc_mbox(struct svio_priv *priv)
{
	mutex_init(&priv->mbox_lock);
	priv->mbox_data = dma_alloc_coherent(&priv->pdev->dev, SVIO_MBOX_DATA,
					     &priv->mbox_data_dma, GFP_KERNEL);
	priv->mc_list = kcalloc(SVIO_MULTICAST_MAX, ETH_ALEN, GFP_KERNEL);
	return priv->mbox_data && priv->mc_list ? 0 : -ENOMEM;
}

static void svio_free_mbox(struct svio_priv *priv)
{
	kfree(priv->mc_list);
	if (priv->mbox_data)
		dma_free_coherent(&priv->pdev->dev, SVIO_MBOX_DATA, priv->mbox_data,
				  priv->mbox_data_dma);
}

static int svio_register(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	int err;

	svio_init_pairs(priv);
	svio_setup_mac(priv);
	svio_setup_netdev(priv);
	err = svio_setup_sizes(priv);
	if (err)
		return err;
	svio_setup_queues(priv);
	err = svio_set_real_pairs(priv, priv->pairs);
	if (!err)
		err = svio_restore(priv);
	if (err)
		return err;
	netif_carrier_off(netdev);
	err = register_netdev(netdev);
	if (err)
		return err;
	rtnl_lock();
	svio_spread_senders(priv);
	rtnl_unlock();
	return 0;
}

static int svio_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct net_device *netdev;
	struct svio_priv *priv;
	int err;

	netdev = alloc_etherdev_mqs(sizeof(*priv), SVIO_MAX_QUEUE_PAIRS, SVIO_MAX_QUEUE_PAIRS);
	if (!netdev)
		return -ENOMEM;
	SET_NETDEV_DEV(netdev, &pdev->dev);
	priv = netdev_priv(netdev);
	priv->netdev = netdev;
	priv->pdev = pdev;
	priv->last_reset = jiffies - HZ;
	priv->msg_enable = netif_msg_init(debug, SVIO_MSG_DEFAULT);
	INIT_DELAYED_WORK(&priv->service, svio_service);
	INIT_DELAYED_WORK(&priv->refill, svio_refill);
	pci_set_drvdata(pdev, priv);

	err = svio_setup_pci(priv);
	if (err)
		goto free_netdev;
	err = svio_alloc_mbox(priv);
	if (err)
		goto free_mbox;
	err = svio_admin_alloc(priv);
	if (err)
		goto free_mbox;
	err = svio_setup_vectors(priv);
	if (err)
		goto free_mbox;
	if (test_bit(SVIO_EMPTY, &priv->state)) {
		err = svio_slot_listen(priv);
		if (err)
			goto free_vectors;
		return 0;
	}
	svio_admin_start(priv);
	err = svio_register(priv);
	if (err)
		goto free_vectors;
	svio_devlink_register(priv);

	/* An event may have come before the service task had a net device. */
	mod_delayed_work(system_wq, &priv->service, 0);
	netdev_info(netdev, "VIF %08x%08x, ABI %u.%u, %u queue pair%s, MAC %pM\n",
		    svio_rd(priv, SVIO_REG_VIF_ID_HI), svio_rd(priv, SVIO_REG_VIF_ID_LO),
		    priv->abi_version >> 16, priv->abi_version & 0xffff,
		    priv->pairs, priv->pairs == 1 ? "" : "s", netdev->dev_addr);
	if (pci_num_vf(pdev))
		netdev_info(netdev, "%d VFs are there already\n", pci_num_vf(pdev));
	return 0;

free_vectors:
	svio_release_vectors(priv);
free_mbox:
	svio_release_pci(priv);
	svio_admin_free(priv);
	svio_free_mbox(priv);
free_netdev:
	free_netdev(netdev);
	return err;
}

static void svio_remove(struct pci_dev *pdev)
{
	struct svio_priv *priv = pci_get_drvdata(pdev);

	svio_sriov_remove(priv);
	svio_devlink_unregister(priv);
	if (!test_bit(SVIO_EMPTY, &priv->state))
		unregister_netdev(priv->netdev);
	svio_release_vectors(priv);
	svio_release_pci(priv);
	svio_admin_free(priv);
	svio_free_mbox(priv);
	kfree(priv->vf_saved);
	free_netdev(priv->netdev);
}

static void svio_shutdown(struct pci_dev *pdev)
{
	svio_power_down(pci_get_drvdata(pdev));
}

static const struct pci_device_id svio_ids[] = {
	{ PCI_DEVICE(SVIO_PCI_VENDOR, SVIO_PCI_DEVICE_PF) },
	{ PCI_DEVICE(SVIO_PCI_VENDOR, SVIO_PCI_DEVICE_VF) },
	{ }
};
MODULE_DEVICE_TABLE(pci, svio_ids);

static struct pci_driver svio_driver = {
	.name = SVIO_DRV_NAME,
	.id_table = svio_ids,
	.probe = svio_probe,
	.remove = svio_remove,
	.shutdown = svio_shutdown,
	.sriov_configure = svio_sriov_configure,
	.err_handler = &svio_err_handler,
	.driver.pm = pm_sleep_ptr(&svio_pm_ops),
};

static int __init svio_init(void)
{
	int err;

	err = svio_slot_init();
	if (err)
		return err;
	err = pci_register_driver(&svio_driver);
	if (err)
		svio_slot_exit();
	return err;
}
module_init(svio_init);

static void __exit svio_exit(void)
{
	pci_unregister_driver(&svio_driver);
	svio_slot_exit();
}
module_exit(svio_exit);

MODULE_DESCRIPTION("svio self-virtualizing network interface");
MODULE_LICENSE("GPL");
