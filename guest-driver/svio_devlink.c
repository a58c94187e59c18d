// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * svio VIF driver: devlink. "devlink dev info" tells what the device is; the
 * parameters qos_min_mbps, qos_max_mbps and qos_weight are a guest's request for
 * its own VIF: setting one asks management, reading it tells what is granted.
 */
#include <linux/rtnetlink.h>
#include <net/devlink.h>

#include "svio.h"

/* ---- devlink dev info ---- */

/* Newer kernels tell the driver's name by themselves. */
static int svio_info_driver_name(struct devlink_info_req *req)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	return devlink_info_driver_name_put(req, SVIO_DRV_NAME);
#else
	return 0;
#endif
}

static int svio_info_vif(struct svio_priv *priv, struct devlink_info_req *req)
{
	char text[24];
	int err;

	snprintf(text, sizeof(text), "%llu", priv->vif_id);
	err = devlink_info_version_running_put(req, "vif.id", text);
	if (err)
		return err;
	snprintf(text, sizeof(text), "%u",
		 svio_rd(priv, SVIO_REG_FUNCTION) & SVIO_FUNCTION_SLOT);
	return devlink_info_version_fixed_put(req, "vif.slot", text);
}

static int svio_info_management(struct svio_priv *priv, struct devlink_info_req *req)
{
	char text[24] = "none";

	if (priv->pdev->is_virtfn || !(svio_rd(priv, SVIO_REG_FUNCTION) & SVIO_FUNCTION_PF))
		return 0;
	if (svio_admin_has(priv, SVIO_OPTION_MANAGEMENT))
		snprintf(text, sizeof(text), "management%s",
			 svio_admin_has(priv, SVIO_OPTION_QOS) ? " qos" : "");
	return devlink_info_version_running_put(req, "fw.mgmt", text);
}

static int svio_info_get(struct devlink *devlink, struct devlink_info_req *req,
			 struct netlink_ext_ack *extack)
{
	struct svio_priv *priv = *(struct svio_priv **)devlink_priv(devlink);
	struct pci_dev *pdev = priv->pdev;
	char text[24];
	int err;

	err = svio_info_driver_name(req);
	if (err)
		return err;
	snprintf(text, sizeof(text), "%04x:%04x", pdev->vendor, pdev->device);
	err = devlink_info_version_fixed_put(req, DEVLINK_INFO_VERSION_GENERIC_BOARD_ID, text);
	if (err)
		return err;
	snprintf(text, sizeof(text), "%u", pdev->revision);
	err = devlink_info_version_fixed_put(req, DEVLINK_INFO_VERSION_GENERIC_BOARD_REV, text);
	if (err)
		return err;
	snprintf(text, sizeof(text), "%u.%u", priv->abi_version >> 16,
		 priv->abi_version & 0xffff);
	err = devlink_info_version_running_put(req, DEVLINK_INFO_VERSION_GENERIC_FW_MGMT_API,
					       text);
	if (!err)
		err = svio_info_vif(priv, req);
	if (!err)
		err = svio_info_management(priv, req);
	return err;
}

static const struct devlink_ops svio_devlink_ops = {
	.info_get = svio_info_get,
};

/* ---- a guest's request for rates and weight ---- */

enum {
	SVIO_PARAM_QOS_MIN = DEVLINK_PARAM_GENERIC_ID_MAX + 1,
	SVIO_PARAM_QOS_MAX,
	SVIO_PARAM_QOS_WEIGHT,
};

static u32 *svio_qos_field(struct svio_qos *qos, u32 id)
{
	switch (id) {
	case SVIO_PARAM_QOS_MIN:
		return &qos->min_mbps;
	case SVIO_PARAM_QOS_MAX:
		return &qos->max_mbps;
	default:
		return &qos->weight;
	}
}

static int svio_qos_read(struct svio_priv *priv, struct svio_qos *qos)
{
	struct svio_vif_info info;
	int err;

	err = svio_mbox_identify(priv, &info);
	if (err)
		return err;
	qos->min_mbps = le32_to_cpu(info.min_mbps);
	qos->max_mbps = le32_to_cpu(info.max_mbps);
	qos->weight = le32_to_cpu(info.weight);
	return 0;
}

static int svio_qos_get(struct devlink *devlink, u32 id, struct devlink_param_gset_ctx *ctx)
{
	struct svio_priv *priv = *(struct svio_priv **)devlink_priv(devlink);
	struct svio_qos qos;
	int err;

	rtnl_lock();
	err = svio_qos_read(priv, &qos);
	rtnl_unlock();
	if (!err)
		ctx->val.vu32 = *svio_qos_field(&qos, id);
	return err;
}

static int svio_qos_request(struct devlink *devlink, u32 id, u32 value)
{
	struct svio_priv *priv = *(struct svio_priv **)devlink_priv(devlink);
	struct svio_qos qos;
	int err;

	rtnl_lock();
	err = svio_qos_read(priv, &qos);
	if (!err) {
		*svio_qos_field(&qos, id) = value;
		err = svio_mbox_qos(priv, &qos);
	}
	if (!err && *svio_qos_field(&qos, id) != value)
		netdev_info(priv->netdev, "management grants %u of %u\n",
			    *svio_qos_field(&qos, id), value);
	rtnl_unlock();
	return err;
}

#ifdef SVIO_HAVE_PARAM_EXTACK
static int svio_qos_set(struct devlink *devlink, u32 id, struct devlink_param_gset_ctx *ctx,
			struct netlink_ext_ack *extack)
{
	int err = svio_qos_request(devlink, id, ctx->val.vu32);

	if (err == -EPERM)
		NL_SET_ERR_MSG_MOD(extack, "management does not let this VIF ask");
	return err;
}
#else
static int svio_qos_set(struct devlink *devlink, u32 id, struct devlink_param_gset_ctx *ctx)
{
	return svio_qos_request(devlink, id, ctx->val.vu32);
}
#endif

#define SVIO_QOS_PARAM(id, name) \
	DEVLINK_PARAM_DRIVER(id, name, DEVLINK_PARAM_TYPE_U32, \
			     BIT(DEVLINK_PARAM_CMODE_RUNTIME), svio_qos_get, svio_qos_set, NULL)

static const struct devlink_param svio_qos_params[] = {
	SVIO_QOS_PARAM(SVIO_PARAM_QOS_MIN, "qos_min_mbps"),
	SVIO_QOS_PARAM(SVIO_PARAM_QOS_MAX, "qos_max_mbps"),
	SVIO_QOS_PARAM(SVIO_PARAM_QOS_WEIGHT, "qos_weight"),
};

/* ---- life ---- */

static bool svio_may_ask(const struct svio_priv *priv)
{
	return priv->features & SVIO_F_QOS_REQUEST;
}

/* After the net device. The driver works without it. */
void svio_devlink_register(struct svio_priv *priv)
{
	struct devlink *devlink;

	devlink = devlink_alloc(&svio_devlink_ops, sizeof(priv), &priv->pdev->dev);
	if (!devlink)
		return;
	*(struct svio_priv **)devlink_priv(devlink) = priv;
	if (svio_may_ask(priv) &&
	    devlink_params_register(devlink, svio_qos_params, ARRAY_SIZE(svio_qos_params))) {
		devlink_free(devlink);
		return;
	}
	devlink_register(devlink);
	priv->devlink = devlink;
	priv->devlink_params = svio_may_ask(priv);
}

void svio_devlink_unregister(struct svio_priv *priv)
{
	if (!priv->devlink)
		return;
	devlink_unregister(priv->devlink);
	if (priv->devlink_params)
		devlink_params_unregister(priv->devlink, svio_qos_params,
					  ARRAY_SIZE(svio_qos_params));
	devlink_free(priv->devlink);
	priv->devlink = NULL;
}
