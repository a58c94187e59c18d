// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * svio PF driver: the admin queue (SPEC 8). Commands run one at a time, in
 * process context. What the device answers is looked at as a device's word,
 * not as the truth: lengths, tags and lists are checked.
 */
#include "svio.h"

#define SVIO_ADMIN_SIZE SVIO_ADMIN_QUEUE_MIN
#define SVIO_ADMIN_DATA PAGE_SIZE
#define SVIO_ADMIN_TIMEOUT (10 * HZ)
#define SVIO_ADMIN_LOOK (HZ / 10) /* without an interrupt, should one be lost */
#define SVIO_ADMIN_STRIKES 2 /* bad answers in a row */
#define SVIO_ADMIN_OPTIONS (BIT(SVIO_OPTION_MANAGEMENT) | BIT(SVIO_OPTION_QOS))

struct svio_admin {
	struct mutex lock; /* one command at a time, and its data buffer */
	wait_queue_head_t wait;
	struct svio_command *ring;
	dma_addr_t ring_dma;
	void *data;
	dma_addr_t data_dma;
	u32 next; /* position of the next command */
	u32 options; /* accepted, as bits */
	u32 strikes;
	u16 tag;
	bool running;
};

/* ---- the ring ---- */

static int svio_admin_start_ring(struct svio_priv *priv)
{
	struct svio_admin *admin = priv->admin;
	u32 state;

	memset(admin->ring, 0, SVIO_ADMIN_SIZE * sizeof(*admin->ring));
	admin->next = 0;
	svio_wr(priv, SVIO_REG_ADMIN_BASE_LO, lower_32_bits(admin->ring_dma));
	svio_wr(priv, SVIO_REG_ADMIN_BASE_HI, upper_32_bits(admin->ring_dma));
	svio_wr(priv, SVIO_REG_ADMIN_SIZE, SVIO_ADMIN_SIZE);
	svio_wr(priv, SVIO_REG_ADMIN_VECTOR, 0); /* shared with events */
	svio_wr(priv, SVIO_REG_ADMIN_CONTROL, SVIO_QUEUE_ENABLE);
	state = svio_rd(priv, SVIO_REG_ADMIN_STATE);
	admin->running = SVIO_QUEUE_STATE_OF(state) == SVIO_QUEUE_RUNNING;
	if (admin->running)
		return 0;
	dev_err(&priv->pdev->dev, "the admin queue does not start, state %#x\n", state);
	return -EIO;
}

/* When it returns 0 the device has forgotten ring and data buffer. */
static int svio_admin_stop_ring(struct svio_priv *priv)
{
	u32 state;
	int err;

	priv->admin->running = false;
	svio_wr(priv, SVIO_REG_ADMIN_CONTROL, 0);
	err = readl_poll_timeout(priv->regs + SVIO_REG_ADMIN_STATE, state,
				 state == U32_MAX ||
				 SVIO_QUEUE_STATE_OF(state) == SVIO_QUEUE_DISABLED,
				 50, SVIO_STOP_TIMEOUT_US);
	return state == U32_MAX ? -ENODEV : err;
}

/* A late answer must find no command of ours to overwrite, nor its data. */
static void svio_admin_strike(struct svio_priv *priv)
{
	struct svio_admin *admin = priv->admin;

	if (svio_admin_stop_ring(priv))
		dev_err(&priv->pdev->dev, "the admin queue does not stop\n");
	else if (++admin->strikes <= SVIO_ADMIN_STRIKES && !svio_admin_start_ring(priv))
		return;
	dev_err(&priv->pdev->dev, "management is given up until the next reset\n");
}

static void svio_admin_post(struct svio_priv *priv, const struct svio_command *cmd)
{
	struct svio_admin *admin = priv->admin;
	struct svio_command *entry = &admin->ring[admin->next & (SVIO_ADMIN_SIZE - 1)];
	u16 flags = svio_lap(admin->next, SVIO_ADMIN_SIZE) ? SVIO_COMMAND_POSTED :
							     SVIO_COMMAND_DONE;

	entry->opcode = cmd->opcode;
	entry->tag = cmd->tag;
	entry->status = 0;
	entry->slot = cmd->slot;
	entry->data_len = cmd->data_len;
	entry->data_addr = cmd->data_addr;
	entry->u = cmd->u;
	/* The device takes the command when it sees the flags. */
	dma_wmb();
	WRITE_ONCE(entry->flags, cpu_to_le16(flags));
	svio_wr(priv, SVIO_REG_ADMIN_BELL, 1);
}

static bool svio_admin_answered(const struct svio_command *entry, bool lap)
{
	return !!(le16_to_cpu(READ_ONCE(entry->flags)) & SVIO_COMMAND_DONE) == lap;
}

static int svio_admin_wait(struct svio_priv *priv, struct svio_command *cmd)
{
	struct svio_admin *admin = priv->admin;
	struct svio_command *entry = &admin->ring[admin->next & (SVIO_ADMIN_SIZE - 1)];
	bool lap = svio_lap(admin->next, SVIO_ADMIN_SIZE);
	unsigned long end = jiffies + SVIO_ADMIN_TIMEOUT;

	while (!wait_event_timeout(admin->wait, svio_admin_answered(entry, lap),
				   SVIO_ADMIN_LOOK)) {
		if (svio_hw_gone(priv))
			return -ENODEV;
		if (time_after(jiffies, end))
			return -ETIMEDOUT;
	}
	/* The answer was written before its flags. */
	dma_rmb();
	*cmd = *entry;
	admin->next++;
	return 0;
}

void svio_admin_irq(struct svio_priv *priv)
{
	if (priv->admin)
		wake_up(&priv->admin->wait);
}

/* ---- commands ---- */

/* Runs `cmd` and leaves the answer there. The lock is held. Returns the bytes of data or an error. */
static int svio_admin_exec(struct svio_priv *priv, struct svio_command *cmd, u32 room)
{
	struct svio_admin *admin = priv->admin;
	u16 opcode = le16_to_cpu(cmd->opcode), tag = ++admin->tag;
	u32 len;
	int err;

	lockdep_assert_held(&admin->lock);
	if (test_bit(SVIO_DETACHED, &priv->state) || test_bit(SVIO_GONE, &priv->state))
		return -ENODEV;
	if (!admin->running)
		return -EIO;
	cmd->tag = cpu_to_le16(tag);
	cmd->data_addr = room ? cpu_to_le64(admin->data_dma) : 0;
	cmd->data_len = cpu_to_le32(room);
	svio_admin_post(priv, cmd);
	err = svio_admin_wait(priv, cmd);
	if (err == -ENODEV)
		return err;
	if (err) {
		dev_err(&priv->pdev->dev, "admin command %#06x timed out, state %#x\n", opcode,
			svio_rd(priv, SVIO_REG_ADMIN_STATE));
		svio_admin_strike(priv);
		return err;
	}
	len = le32_to_cpu(cmd->data_len);
	if (le16_to_cpu(cmd->tag) != tag || le16_to_cpu(cmd->opcode) != opcode ||
	    (!cmd->status && len > room)) {
		dev_err(&priv->pdev->dev,
			"admin command %#06x, tag %#x: the answer is for %#06x, tag %#x, %u bytes\n",
			opcode, tag, le16_to_cpu(cmd->opcode), le16_to_cpu(cmd->tag), len);
		svio_admin_strike(priv);
		return -EIO;
	}
	admin->strikes = 0;
	err = svio_status_errno(le16_to_cpu(cmd->status));
	return err ?: min(len, room);
}

/*
 * A command with `in_len` bytes of data to the device, or `out_len` from it.
 * An answer that is shorter than `out_len` is filled up with zeros; returns its length.
 */
int svio_admin_command(struct svio_priv *priv, struct svio_command *cmd, const void *in,
		       u32 in_len, void *out, u32 out_len)
{
	struct svio_admin *admin = priv->admin;
	int len;

	if (!admin)
		return -EOPNOTSUPP;
	if (WARN_ON_ONCE(in_len > SVIO_ADMIN_DATA || out_len > SVIO_ADMIN_DATA))
		return -EINVAL;
	mutex_lock(&admin->lock);
	memset(admin->data, 0, SVIO_ADMIN_DATA);
	if (in_len)
		memcpy(admin->data, in, in_len);
	len = svio_admin_exec(priv, cmd, max(in_len, out_len));
	if (len >= 0 && out_len)
		memcpy(out, admin->data, out_len);
	mutex_unlock(&admin->lock);
	return len;
}

bool svio_admin_has(const struct svio_priv *priv, u32 option)
{
	return priv->admin && priv->admin->options & BIT(option);
}

/* ---- options ---- */

/* Bits of the options that are offered and that we can use. The lock is held. */
static int svio_admin_describe(struct svio_priv *priv, u32 *offered)
{
	struct svio_command cmd = { .opcode = cpu_to_le16(SVIO_OP_DESCRIBE_OPTIONS),
				    .slot = cpu_to_le32(SVIO_SLOT_SELF) };
	struct svio_option option;
	int len, at;
	u16 id;

	*offered = 0;
	memset(priv->admin->data, 0, SVIO_ADMIN_DATA);
	len = svio_admin_exec(priv, &cmd, SVIO_ADMIN_DATA);
	if (len < 0)
		return len;
	for (at = 0; at + (int)sizeof(option) <= len;
	     at += sizeof(option) + le16_to_cpu(option.length)) {
		memcpy(&option, priv->admin->data + at, sizeof(option));
		id = le16_to_cpu(option.id);
		if (id == SVIO_OPTION_END)
			return 0;
		/* We know of no bit that an option could require. */
		if (id < BITS_PER_TYPE(u32) && !option.required)
			*offered |= BIT(id) & SVIO_ADMIN_OPTIONS;
	}
	dev_err(&priv->pdev->dev, "the list of management's options has no end\n");
	return -EIO;
}

static int svio_admin_accept(struct svio_priv *priv, u32 options)
{
	struct svio_command cmd = { .opcode = cpu_to_le16(SVIO_OP_ACCEPT_OPTIONS),
				    .slot = cpu_to_le32(SVIO_SLOT_SELF) };
	struct svio_option list[BITS_PER_TYPE(u32) + 1] = {};
	int id, count = 0, len;

	for (id = 1; id < BITS_PER_TYPE(u32); id++)
		if (options & BIT(id))
			list[count++].id = cpu_to_le16(id);
	memcpy(priv->admin->data, list, (count + 1) * sizeof(*list));
	len = svio_admin_exec(priv, &cmd, (count + 1) * sizeof(*list));
	if (len < 0)
		return len;
	priv->admin->options = options;
	return 0;
}

/* ---- life ---- */

/* After each reset of the function. Without management the VIF works all the same. */
void svio_admin_start(struct svio_priv *priv)
{
	struct svio_admin *admin = priv->admin;
	u32 offered = 0;
	int err;

	if (!admin)
		return;
	mutex_lock(&admin->lock);
	admin->options = 0;
	admin->strikes = 0;
	err = svio_admin_start_ring(priv);
	if (!err)
		err = svio_admin_describe(priv, &offered);
	if (!err)
		err = svio_admin_accept(priv, offered);
	mutex_unlock(&admin->lock);
	if (err)
		dev_warn(&priv->pdev->dev, "no management: %d\n", err);
}

/* A reset has stopped the queue, or is about to. */
void svio_admin_forget(struct svio_priv *priv)
{
	struct svio_admin *admin = priv->admin;

	if (!admin)
		return;
	mutex_lock(&admin->lock);
	admin->running = false;
	admin->options = 0;
	mutex_unlock(&admin->lock);
}

/* Frees nothing that the device still knows: svio_release_pci() has reset it. */
void svio_admin_free(struct svio_priv *priv)
{
	struct svio_admin *admin = priv->admin;
	struct device *dev = &priv->pdev->dev;

	if (!admin)
		return;
	if (admin->ring)
		dma_free_coherent(dev, SVIO_ADMIN_SIZE * sizeof(*admin->ring), admin->ring,
				  admin->ring_dma);
	if (admin->data)
		dma_free_coherent(dev, SVIO_ADMIN_DATA, admin->data, admin->data_dma);
	mutex_destroy(&admin->lock);
	kfree(admin);
	priv->admin = NULL;
}

/* On a PF whose device has an admin queue; on all others there is none, which is no error. */
int svio_admin_alloc(struct svio_priv *priv)
{
	struct device *dev = &priv->pdev->dev;
	struct svio_admin *admin;
	u32 max;

	if (!(svio_rd(priv, SVIO_REG_FUNCTION) & SVIO_FUNCTION_PF))
		return 0;
	max = svio_rd(priv, SVIO_REG_ADMIN_SIZE_MAX);
	if (!max)
		return 0;
	if (max < SVIO_ADMIN_SIZE || max > SVIO_ADMIN_QUEUE_MAX || !is_power_of_2(max)) {
		dev_warn(dev, "no management: an admin queue of %u entries\n", max);
		return 0;
	}
	admin = kzalloc(sizeof(*admin), GFP_KERNEL);
	if (!admin)
		return -ENOMEM;
	priv->admin = admin;
	mutex_init(&admin->lock);
	init_waitqueue_head(&admin->wait);
	admin->ring = dma_alloc_coherent(dev, SVIO_ADMIN_SIZE * sizeof(*admin->ring),
					 &admin->ring_dma, GFP_KERNEL);
	admin->data = dma_alloc_coherent(dev, SVIO_ADMIN_DATA, &admin->data_dma, GFP_KERNEL);
	if (admin->ring && admin->data)
		return 0;
	svio_admin_free(priv);
	return -ENOMEM;
}
