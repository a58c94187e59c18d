// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: offloads (SPEC 6) and the features that turn them on and off */
#include <linux/tcp.h>
#include <linux/udp.h>

#include "svio.h"

#define SVIO_NETIF_RX (NETIF_F_RXCSUM | NETIF_F_GRO_HW | NETIF_F_HW_VLAN_CTAG_RX)

/* ---- sending ---- */

static u32 svio_tx_segments(struct svio_entry *head, const struct sk_buff *skb)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);
	u32 header = skb_transport_offset(skb);

	if (shinfo->gso_type & SKB_GSO_UDP_L4) {
		head->seg_type = SVIO_SEG_UDP;
		header += sizeof(struct udphdr);
	} else {
		head->seg_type = shinfo->gso_type & SKB_GSO_TCPV6 ? SVIO_SEG_TCP6 :
								    SVIO_SEG_TCP4;
		header += tcp_hdrlen(skb);
	}
	head->seg_size = cpu_to_le16(shinfo->gso_size);
	head->seg_header = cpu_to_le16(header);
	return SVIO_ENTRY_SEG;
}

/* What is left to the device: fills the offload fields, returns the flags of them. */
u32 svio_tx_offload(struct svio_entry *head, const struct sk_buff *skb)
{
	u32 flags = 0;

	if (skb->ip_summed == CHECKSUM_PARTIAL) {
		head->csum_start = cpu_to_le16(skb_checksum_start_offset(skb));
		head->csum_offset = cpu_to_le16(skb->csum_offset);
		flags = SVIO_ENTRY_CSUM;
		if (skb_is_gso(skb))
			flags |= svio_tx_segments(head, skb);
	}
	if (skb_vlan_tag_present(skb)) {
		head->vlan_tci = cpu_to_le16(skb_vlan_tag_get(skb));
		flags |= SVIO_ENTRY_VLAN;
	}
	return flags;
}

netdev_features_t svio_features_check(struct sk_buff *skb, struct net_device *netdev,
				      netdev_features_t features)
{
	struct svio_priv *priv = netdev_priv(netdev);

	features = vlan_features_check(skb, features);
	if (!skb_is_gso(skb))
		return features;
	/* The device finds the packet behind two tags at most; and better segments than a copy. */
	if (skb_network_offset(skb) > ETH_HLEN + 2 * VLAN_HLEN ||
	    skb_shinfo(skb)->nr_frags >= priv->pair[0].tx.chain_max)
		features &= ~NETIF_F_GSO_MASK;
	return features;
}

/* ---- receiving ---- */

/* The headers lie in the first buffer, or it is not for us to make sense of them. */
static bool svio_rx_segments(const struct svio_entry *head, struct sk_buff *skb)
{
	struct skb_shared_info *shinfo = skb_shinfo(skb);
	u32 header = le16_to_cpu(READ_ONCE(head->seg_header));
	u32 start = le16_to_cpu(READ_ONCE(head->csum_start));
	u32 size = le16_to_cpu(READ_ONCE(head->seg_size));

	if (!size || header > skb_headlen(skb) || start >= header)
		return false;
	switch (READ_ONCE(head->seg_type)) {
	case SVIO_SEG_TCP4:
		shinfo->gso_type = SKB_GSO_TCPV4;
		break;
	case SVIO_SEG_TCP6:
		shinfo->gso_type = SKB_GSO_TCPV6;
		break;
	case SVIO_SEG_UDP:
		shinfo->gso_type = SKB_GSO_UDP_L4;
		break;
	default:
		return false;
	}
	if (shinfo->gso_type != SKB_GSO_UDP_L4) {
		if (start + sizeof(struct tcphdr) > header)
			return false;
		if (((const struct tcphdr *)(skb->data + start))->cwr)
			shinfo->gso_type |= SKB_GSO_TCP_ECN;
	}
	if (skb->len - header <= size) {
		shinfo->gso_type = 0; /* one segment is none */
		return true;
	}
	/* It comes from outside: whoever cuts it has to look at its headers first. */
	shinfo->gso_type |= SKB_GSO_DODGY;
	shinfo->gso_size = size;
	shinfo->gso_segs = 0;
	return true;
}

/*
 * Tells the stack what the device says of a message, whose first byte is at
 * skb->data. False: it cannot be, and nobody gets it.
 */
bool svio_rx_offload(const struct svio_entry *head, u32 flags, struct sk_buff *skb)
{
	if (flags & SVIO_ENTRY_CSUM) {
		if (!skb_partial_csum_set(skb, le16_to_cpu(READ_ONCE(head->csum_start)),
					  le16_to_cpu(READ_ONCE(head->csum_offset))))
			return false;
		if ((flags & SVIO_ENTRY_SEG) && !svio_rx_segments(head, skb))
			return false;
	} else if (flags & SVIO_ENTRY_SEG) {
		return false;
	} else if (flags & SVIO_ENTRY_CSUM_OK) {
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	}
	if (flags & SVIO_ENTRY_VLAN)
		__vlan_hwaccel_put_tag(skb, htons(ETH_P_8021Q),
				       le16_to_cpu(READ_ONCE(head->vlan_tci)));
	return true;
}

/* ---- features, under RTNL ---- */

static u64 svio_rx_offloads(const struct svio_priv *priv, netdev_features_t features)
{
	u64 wanted = 0;

	if (features & NETIF_F_RXCSUM)
		wanted |= SVIO_F_CSUM_RX;
	if (features & NETIF_F_GRO_HW)
		wanted |= SVIO_F_RX_SEG;
	if (features & NETIF_F_HW_VLAN_CTAG_RX)
		wanted |= SVIO_F_VLAN_RX;
	return wanted & priv->features;
}

/* After a reset, which turns all of them on. */
int svio_apply_offloads(struct svio_priv *priv)
{
	u64 wanted = svio_rx_offloads(priv, priv->netdev->features);

	if (wanted == (priv->features & SVIO_F_RX_OFFLOADS))
		return 0;
	return svio_mbox_rx_offloads(priv, wanted);
}

netdev_features_t svio_fix_features(struct net_device *netdev, netdev_features_t features)
{
	struct svio_priv *priv = netdev_priv(netdev);

	/* A program would see frames that are not as they will be, or only part of one. */
	if (priv->xdp)
		features &= ~SVIO_NETIF_RX;
	/* The device leaves checksums of segments open. */
	if (!(features & NETIF_F_RXCSUM))
		features &= ~NETIF_F_GRO_HW;
	return features;
}

int svio_set_features(struct net_device *netdev, netdev_features_t features)
{
	struct svio_priv *priv = netdev_priv(netdev);
	netdev_features_t changed = features ^ netdev->features;
	bool large = features & NETIF_F_GRO_HW;
	int err;

	if (!(changed & SVIO_NETIF_RX))
		return 0;
	/* First the buffers that unsplit segments need, then those. */
	if (large && !priv->rx_large) {
		priv->rx_large = true;
		err = svio_reconfigure(priv, priv->tx_size, priv->rx_size, priv->xdp);
		if (err) {
			priv->rx_large = false;
			return err;
		}
	}
	err = svio_mbox_rx_offloads(priv, svio_rx_offloads(priv, features));
	if (!err)
		priv->rx_large = large;
	return err;
}

void svio_setup_offloads(struct svio_priv *priv)
{
	struct net_device *netdev = priv->netdev;
	netdev_features_t features = NETIF_F_SG;

	if (priv->features & SVIO_F_CSUM_TX) {
		features |= NETIF_F_HW_CSUM;
		if (priv->features & SVIO_F_SEG_TCP4)
			features |= NETIF_F_TSO | NETIF_F_TSO_ECN;
		if (priv->features & SVIO_F_SEG_TCP6)
			features |= NETIF_F_TSO6;
		if (priv->features & SVIO_F_SEG_UDP)
			features |= NETIF_F_GSO_UDP_L4;
	}
	if (priv->features & SVIO_F_CSUM_RX) {
		features |= NETIF_F_RXCSUM;
		if ((priv->features & SVIO_F_RX_SEG) && (priv->features & SVIO_F_RX_CHAIN))
			features |= NETIF_F_GRO_HW;
	}
	netdev->vlan_features = features | NETIF_F_HIGHDMA;
	if (priv->features & SVIO_F_VLAN_TX)
		features |= NETIF_F_HW_VLAN_CTAG_TX;
	if (priv->features & SVIO_F_VLAN_RX)
		features |= NETIF_F_HW_VLAN_CTAG_RX;
	netdev->hw_features = features;
	netdev->features = features | NETIF_F_HIGHDMA;
	priv->rx_large = features & NETIF_F_GRO_HW;
	netif_set_tso_max_segs(netdev, SVIO_SEGMENTS_MAX);
}
