// SPDX-License-Identifier: GPL-2.0-or-later
/* svio VIF driver: register dump, ethtool -d. Its format is in SPEC.md, chapter 11. */
#include "svio.h"

#define SVIO_REGS_VERSION 1

/* One register with its name, so that a dump explains itself. Little endian. */
struct svio_reg_record {
	char name[24]; /* zero padded */
	__le32 offset;
	__le32 value;
};

struct svio_reg_name {
	const char *name;
	u32 offset;
};

/* Reading these has no side effect. */
static const struct svio_reg_name svio_function_regs[] = {
	{ "magic", SVIO_REG_MAGIC },
	{ "abi_version", SVIO_REG_ABI_VERSION },
	{ "function", SVIO_REG_FUNCTION },
	{ "status", SVIO_REG_STATUS },
	{ "control", SVIO_REG_CONTROL },
	{ "event", SVIO_REG_EVENT },
	{ "event_vector", SVIO_REG_EVENT_VECTOR },
	{ "device_features_lo", SVIO_REG_DEVICE_FEATURES_LO },
	{ "device_features_hi", SVIO_REG_DEVICE_FEATURES_HI },
	{ "driver_features_lo", SVIO_REG_DRIVER_FEATURES_LO },
	{ "driver_features_hi", SVIO_REG_DRIVER_FEATURES_HI },
	{ "queue_pairs", SVIO_REG_QUEUE_PAIRS },
	{ "queue_size_max", SVIO_REG_QUEUE_SIZE_MAX },
	{ "queue_size_hint", SVIO_REG_QUEUE_SIZE_HINT },
	{ "mtu_max", SVIO_REG_MTU_MAX },
	{ "vif_id_lo", SVIO_REG_VIF_ID_LO },
	{ "vif_id_hi", SVIO_REG_VIF_ID_HI },
	{ "vif_kind", SVIO_REG_VIF_KIND },
	{ "mac_lo", SVIO_REG_MAC_LO },
	{ "mac_hi", SVIO_REG_MAC_HI },
	{ "link_speed", SVIO_REG_LINK_SPEED },
	{ "mailbox_state", SVIO_REG_MAILBOX_STATE },
};

static const struct svio_reg_name svio_queue_regs[] = {
	{ "base_lo", SVIO_QUEUE_BASE_LO },
	{ "base_hi", SVIO_QUEUE_BASE_HI },
	{ "event_lo", SVIO_QUEUE_EVENT_LO },
	{ "event_hi", SVIO_QUEUE_EVENT_HI },
	{ "size", SVIO_QUEUE_SIZE },
	{ "vector", SVIO_QUEUE_VECTOR },
	{ "control", SVIO_QUEUE_CONTROL },
	{ "state", SVIO_QUEUE_STATE },
	{ "position", SVIO_QUEUE_POSITION },
	{ "moderation", SVIO_QUEUE_MODERATION },
};

int svio_get_regs_len(struct net_device *netdev)
{
	struct svio_priv *priv = netdev_priv(netdev);

	return (ARRAY_SIZE(svio_function_regs) + priv->pairs * 2 * ARRAY_SIZE(svio_queue_regs)) *
	       sizeof(struct svio_reg_record);
}

static struct svio_reg_record *svio_put_reg(struct svio_priv *priv, struct svio_reg_record *record,
					    const char *prefix, const char *name, u32 offset)
{
	snprintf(record->name, sizeof(record->name), "%s%s", prefix, name);
	record->offset = cpu_to_le32(offset);
	record->value = cpu_to_le32(svio_rd(priv, offset));
	return record + 1;
}

void svio_get_regs(struct net_device *netdev, struct ethtool_regs *regs, void *data)
{
	struct svio_priv *priv = netdev_priv(netdev);
	struct svio_reg_record *record = data;
	int i, dir, pair;
	char prefix[8];

	regs->version = SVIO_REGS_VERSION;
	memset(data, 0, regs->len);
	for (i = 0; i < ARRAY_SIZE(svio_function_regs); i++)
		record = svio_put_reg(priv, record, "", svio_function_regs[i].name,
				      svio_function_regs[i].offset);
	for (pair = 0; pair < priv->pairs; pair++) {
		for (dir = SVIO_SEND; dir <= SVIO_RECEIVE; dir++) {
			snprintf(prefix, sizeof(prefix), "%s%d_",
				 dir == SVIO_SEND ? "tx" : "rx", pair % SVIO_MAX_QUEUE_PAIRS);
			for (i = 0; i < ARRAY_SIZE(svio_queue_regs); i++)
				record = svio_put_reg(priv, record, prefix,
						      svio_queue_regs[i].name,
						      SVIO_QUEUE_REG(pair, dir,
								     svio_queue_regs[i].offset));
		}
	}
}
