// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A hostile guest for tests: binds to an svio card in place of svio.ko (by
 * driver_override alone, it has no table of devices) and writes nonsense into
 * registers, doorbells, rings, event blocks and commands, from several CPUs
 * at once and without any lock, for a bounded number of operations.
 *
 * The card obeys: what a receive entry names it writes to. So that the test
 * is not this kernel's own suicide, every address that the card may write to
 * is in the arena, or nothing that a card may reach at all (MMIO, the card's
 * own BARs, ROM, beyond the end of RAM, far above it). Words may be torn
 * between threads, so the low half alone must be harmless as well.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "svio_abi.h"

static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Each thread's operations follow from it");
static uint ops = 20000;
module_param(ops, uint, 0444);
MODULE_PARM_DESC(ops, "Operations of each thread");
static uint threads = 4;
module_param(threads, uint, 0444);
MODULE_PARM_DESC(threads, "Threads, 1 to 16");
static ulong ram_end;
module_param(ram_end, ulong, 0444);
MODULE_PARM_DESC(ram_end, "First address behind the RAM below 4 GiB, 0 = unknown");
static bool overlap;
module_param(overlap, bool, 0444);
MODULE_PARM_DESC(overlap, "Rings and event blocks lie over each other; else senders name freed memory");

#define MAX_THREADS 16
#define REGION_SIZE SZ_128K
#define STALE_PAGES 8

/* parts of the arena */
enum region { SEND_RINGS, RECEIVE_RINGS, EVENTS, BUFFERS, REGIONS };

struct hostile {
	struct pci_dev *pdev;
	void __iomem *regs;
	u8 *arena;
	dma_addr_t arena_dma;
	u32 stale[STALE_PAGES]; /* pages that were freed */
	u32 ring[2]; /* offset of the ring in the arena */
	atomic_t running;
	atomic64_t done;
	atomic64_t interrupts;
	struct task_struct *thread[MAX_THREADS];
};

struct hand {
	struct hostile *h;
	u64 state;
};

static u32 random(struct hand *hand)
{
	/* xorshift64*, so that a seed means the same on every kernel */
	hand->state ^= hand->state >> 12;
	hand->state ^= hand->state << 25;
	hand->state ^= hand->state >> 27;
	return (hand->state * 2685821657736338717ULL) >> 32;
}

static u32 below(struct hand *hand, u32 n)
{
	return random(hand) % n;
}

static u32 in_arena(struct hand *hand, enum region region, u32 align)
{
	/* The last region ends the arena, and a card may write a whole message behind an address. */
	u32 room = region == BUFFERS ? REGION_SIZE - SVIO_MESSAGE_MAX : REGION_SIZE;
	u32 offset = region * REGION_SIZE + below(hand, room);

	return lower_32_bits(hand->h->arena_dma) + (offset & ~(align - 1));
}

static u32 bar(struct hand *hand, int which)
{
	resource_size_t start = pci_resource_start(hand->h->pdev, which);

	return start >> 32 ? 0xfee00000 : start;
}

/* What no card may reach. */
static u32 nowhere(struct hand *hand)
{
	switch (below(hand, 6)) {
	case 0:
		return bar(hand, SVIO_BAR_REGS) + below(hand, SVIO_BAR_REGS_SIZE);
	case 1:
		return bar(hand, SVIO_BAR_MSIX) + below(hand, SVIO_BAR_MSIX_SIZE);
	case 2:
		return 0xfee00000; /* interrupts */
	case 3:
		return 0xffff0000 + below(hand, 0xffff); /* the firmware's ROM */
	case 4:
		return 0xfec00000;
	default:
		return ram_end ? ram_end + below(hand, 4096) : 0xfed00000;
	}
}

/* Low half of an address for word 0 of an entry of this region. */
static u32 entry_address(struct hand *hand, enum region region)
{
	u32 what = below(hand, 48);

	if (what == 0)
		return nowhere(hand);
	if (region == SEND_RINGS && !overlap) {
		if (what == 1)
			return hand->h->stale[below(hand, STALE_PAGES)];
		/* Over the end of RAM: reading there is harmless. */
		if (what == 2 && ram_end)
			return ram_end - 1 - below(hand, 2048);
	}
	return in_arena(hand, BUFFERS, 1);
}

static u32 high_half(struct hand *hand)
{
	return below(hand, 64) ? 0 : random(hand) | 1;
}

/* One word of the arena; word 0 and 1 of each 32 bytes may become an address. */
static void scribble(struct hand *hand, u32 offset)
{
	u32 value = random(hand);

	offset &= ~3;
	if (offset >= BUFFERS * REGION_SIZE)
		return;
	if (offset % sizeof(struct svio_entry) == 0)
		value = entry_address(hand, offset / REGION_SIZE);
	else if (offset % sizeof(struct svio_entry) == 4)
		value = high_half(hand);
	WRITE_ONCE(*(u32 *)(hand->h->arena + offset), value);
}

static u32 queue_reg(u32 direction, u32 reg)
{
	return SVIO_QUEUE_REG(0, direction, reg);
}

/* ---- registers ---- */

static u32 harmless(struct hand *hand, u32 offset, u32 value)
{
	u32 reg, direction;

	if (offset == SVIO_REG_MAILBOX + offsetof(struct svio_command, data_addr))
		return below(hand, 4) ? in_arena(hand, BUFFERS, 1) : nowhere(hand);
	if (offset == SVIO_REG_ADMIN_BASE_LO)
		return nowhere(hand);
	if (offset < SVIO_REG_QUEUES || offset >= SVIO_REG_BELLS)
		return value;
	reg = offset % SVIO_QUEUE_DIR_STRIDE;
	direction = offset / SVIO_QUEUE_DIR_STRIDE % 2;
	if (reg == SVIO_QUEUE_BASE_LO && below(hand, 4))
		return in_arena(hand, direction && !overlap ? RECEIVE_RINGS : SEND_RINGS, 64);
	if (reg == SVIO_QUEUE_EVENT_LO && below(hand, 4))
		return in_arena(hand, overlap ? SEND_RINGS : EVENTS, 64);
	if (reg == SVIO_QUEUE_BASE_LO || reg == SVIO_QUEUE_EVENT_LO)
		return nowhere(hand) & ~63;
	return value;
}

static void any_register(struct hand *hand)
{
	u32 offset = below(hand, SVIO_BAR_REGS_SIZE), value = random(hand);
	void __iomem *regs = hand->h->regs;

	switch (below(hand, 4)) {
	case 0:
		offset = below(hand, 0x100);
		break;
	case 1:
		offset = SVIO_REG_QUEUES + below(hand, 2 * SVIO_QUEUE_DIR_STRIDE);
		break;
	}
	if (below(hand, 2))
		value = 1u << (value & 31);
	switch (below(hand, 12)) {
	case 0:
		writeb(value, regs + offset);
		break;
	case 1:
		writew(value, regs + (offset & ~1));
		break;
	case 2:
		readb(regs + offset);
		break;
	case 3:
		readw(regs + (offset & ~1));
		break;
	case 4:
		readq(regs + (offset & ~7));
		break;
	case 5:
		offset &= ~7;
		writeq(harmless(hand, offset, value) |
		       (u64)harmless(hand, offset + 4, random(hand)) << 32, regs + offset);
		break;
	case 6:
	case 7:
		readl(regs + (offset & ~3));
		break;
	default:
		offset &= ~3;
		/* Resets are rare, or there is nothing to attack. */
		if (offset == SVIO_REG_CONTROL && below(hand, 16))
			value &= ~SVIO_CONTROL_RESET;
		writel(harmless(hand, offset, value), regs + offset);
	}
}

static void put(struct hand *hand, u32 direction, u32 reg, u32 value)
{
	writel(value, hand->h->regs + queue_reg(direction, reg));
}

/* Queues as a driver has them, mostly. */
static void start_queue(struct hand *hand)
{
	void __iomem *regs = hand->h->regs;
	u32 direction = below(hand, 2);
	enum region region = direction && !overlap ? RECEIVE_RINGS : SEND_RINGS;
	u32 size = SVIO_QUEUE_MIN << below(hand, 5), base = in_arena(hand, region, 64);
	u32 event = in_arena(hand, overlap ? SEND_RINGS : EVENTS, 64), bad = below(hand, 32);

	if (bad == 0)
		base = nowhere(hand) & ~63;
	else if (bad == 1)
		event = nowhere(hand) & ~63;
	else if (bad == 2)
		size = random(hand);
	else if (bad == 3 && ram_end)
		base = (ram_end - 64) & ~63; /* over the end of RAM */
	put(hand, direction, SVIO_QUEUE_CONTROL, 0);
	put(hand, direction, SVIO_QUEUE_BASE_LO, base);
	put(hand, direction, SVIO_QUEUE_BASE_HI, bad == 4 ? random(hand) | 1 : 0);
	put(hand, direction, SVIO_QUEUE_EVENT_LO, event);
	put(hand, direction, SVIO_QUEUE_EVENT_HI, bad == 5 ? random(hand) | 1 : 0);
	put(hand, direction, SVIO_QUEUE_SIZE, size);
	put(hand, direction, SVIO_QUEUE_VECTOR, below(hand, SVIO_VECTORS));
	put(hand, direction, SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);
	if (bad > 5)
		WRITE_ONCE(hand->h->ring[direction], base - lower_32_bits(hand->h->arena_dma));
	if (!(readl(regs + SVIO_REG_STATUS) & SVIO_STATUS_FEATURES_OK)) {
		writel(readl(regs + SVIO_REG_DEVICE_FEATURES_LO) & random(hand),
		       regs + SVIO_REG_DRIVER_FEATURES_LO);
		writel(SVIO_CONTROL_FEATURES_OK, regs + SVIO_REG_CONTROL);
		writel(random(hand) % SVIO_VECTORS, regs + SVIO_REG_EVENT_VECTOR);
	}
	writel(SVIO_CONTROL_RUN, regs + SVIO_REG_CONTROL);
}

static void command(struct hand *hand)
{
	static const u16 opcodes[] = {
		SVIO_OP_NOP, SVIO_OP_IDENTIFY, SVIO_OP_SET_MAC, SVIO_OP_RX_MODE, SVIO_OP_MULTICAST,
		SVIO_OP_VLAN_FILTER, SVIO_OP_STATS, SVIO_OP_QOS_REQUEST, SVIO_OP_RSS, SVIO_OP_SET_MTU,
		SVIO_OP_QUEUE_PAIRS, SVIO_OP_VIF_DESTROY
	};
	u32 i, value;

	for (i = 0; i < sizeof(struct svio_command); i += 4) {
		value = random(hand) & (below(hand, 2) ? ~0u : 3);
		if (i == offsetof(struct svio_command, opcode))
			value = opcodes[below(hand, ARRAY_SIZE(opcodes))];
		else if (i == offsetof(struct svio_command, slot) && below(hand, 8))
			value = SVIO_SLOT_SELF;
		else if (i == offsetof(struct svio_command, data_len) && below(hand, 4))
			value = below(hand, 1024);
		else if (i == offsetof(struct svio_command, data_addr) + 4)
			value = high_half(hand);
		else if (i == offsetof(struct svio_command, u) && below(hand, 2))
			value = SVIO_STATS_VIF;
		writel(harmless(hand, SVIO_REG_MAILBOX + i, value),
		       hand->h->regs + SVIO_REG_MAILBOX + i);
	}
	writel(1, hand->h->regs + SVIO_REG_MAILBOX_BELL);
}

/* ---- queues ---- */

struct posting {
	u32 direction, size, at;
	bool wild, chain;
};

static u32 posting_flags(struct hand *hand, const struct posting *p, u32 at, bool last)
{
	u32 flags = p->wild && below(hand, 4) == 0 ? random(hand) : 0;

	if (!last && (p->chain || below(hand, 4) == 0))
		flags |= SVIO_ENTRY_MORE;
	if (p->wild && below(hand, 8) == 0)
		return flags;
	flags &= ~(SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE);
	if (svio_lap(at, p->size))
		flags |= SVIO_ENTRY_POSTED;
	else if (p->direction == SVIO_RECEIVE)
		flags |= SVIO_ENTRY_DONE;
	return flags;
}

static void post_one(struct hand *hand, const struct posting *p, u32 at, bool last)
{
	struct hostile *h = hand->h;
	u32 slot = at & (p->size - 1), length = 60 + below(hand, 1455);
	u32 offset = READ_ONCE(h->ring[p->direction]) + slot * sizeof(struct svio_entry);

	if (offset >= 2 * REGION_SIZE)
		return;
	if (p->chain) {
		WRITE_ONCE(*(u32 *)(h->arena + offset), in_arena(hand, BUFFERS, 1));
		WRITE_ONCE(*(u32 *)(h->arena + offset + 4), 0);
	} else {
		scribble(hand, offset);
		scribble(hand, offset + 4);
	}
	if (p->wild && below(hand, 4) == 0)
		length = below(hand, 4) ? random(hand) : 0;
	if (p->direction == SVIO_RECEIVE)
		length = min(length, 2048u);
	WRITE_ONCE(*(u32 *)(h->arena + offset + 8), length);
	dma_wmb();
	WRITE_ONCE(*(u32 *)(h->arena + offset + 28), posting_flags(hand, p, at, last));
}

/* The head last, as a driver does it, so that chains are whole but for the other threads. */
static void post(struct hand *hand)
{
	void __iomem *regs = hand->h->regs;
	struct posting p = { .direction = below(hand, 2), .wild = below(hand, 4) == 0 };
	u32 n = 1 + below(hand, 8), i;

	if (below(hand, 32) == 0) {
		p.chain = true;
		p.wild = false;
		n = SVIO_CHAIN_MAX - 4 + below(hand, 8);
	}
	p.size = readl(regs + queue_reg(p.direction, SVIO_QUEUE_SIZE));
	p.at = readl(regs + queue_reg(p.direction, SVIO_QUEUE_POSITION));
	if (!is_power_of_2(p.size) || p.size > SVIO_QUEUE_MAX)
		p.size = SVIO_QUEUE_MIN;
	for (i = n; i-- > 0;)
		post_one(hand, &p, p.at + i, i + 1 == n);
	writel(1, regs + SVIO_BELL(0, p.direction));
}

static void one(struct hand *hand)
{
	switch (below(hand, 16)) {
	case 0:
	case 1:
		any_register(hand);
		break;
	case 2:
		start_queue(hand);
		break;
	case 3:
		if (below(hand, 4) == 0)
			command(hand);
		break;
	case 4:
		writel(random(hand), hand->h->regs + SVIO_BELL(below(hand, 8), below(hand, 2)));
		break;
	case 5:
	case 6:
	case 7:
	case 8:
		/* A ring has entries, an event block words: both are what lies here. */
		scribble(hand, below(hand, 3 * REGION_SIZE));
		break;
	default:
		post(hand);
	}
}

static int run(void *data)
{
	struct hand hand = *(struct hand *)data;
	u32 n;

	kfree(data);
	for (n = 0; n < ops && !kthread_should_stop(); n++) {
		one(&hand);
		atomic64_inc(&hand.h->done);
		cond_resched();
	}
	atomic_dec(&hand.h->running);
	while (!kthread_should_stop())
		msleep_interruptible(20);
	return 0;
}

/* ---- life ---- */

static ssize_t running_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct hostile *h = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%d\n", atomic_read(&h->running));
}
static DEVICE_ATTR_RO(running);

static ssize_t done_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct hostile *h = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%lld %lld\n", (long long)atomic64_read(&h->done),
			  (long long)atomic64_read(&h->interrupts));
}
static DEVICE_ATTR_RO(done);

static struct attribute *hostile_attrs[] = { &dev_attr_running.attr, &dev_attr_done.attr, NULL };
ATTRIBUTE_GROUPS(hostile);

static irqreturn_t interrupt(int irq, void *data)
{
	struct hostile *h = data;

	atomic64_inc(&h->interrupts);
	return IRQ_HANDLED;
}

static int prepare(struct hostile *h)
{
	struct page *pages[STALE_PAGES] = {};
	int i, vectors, ret;

	h->arena = dmam_alloc_coherent(&h->pdev->dev, REGIONS * REGION_SIZE, &h->arena_dma, GFP_KERNEL);
	if (!h->arena)
		return -ENOMEM;
	h->ring[SVIO_RECEIVE] = REGION_SIZE;
	for (i = 0; i < STALE_PAGES; i++) {
		pages[i] = alloc_page(GFP_KERNEL | GFP_DMA32);
		h->stale[i] = pages[i] ? page_to_phys(pages[i]) : 0xfee00000;
	}
	for (i = 0; i < STALE_PAGES; i++) {
		if (pages[i])
			__free_page(pages[i]);
	}
	vectors = pci_alloc_irq_vectors(h->pdev, SVIO_VECTORS, SVIO_VECTORS, PCI_IRQ_MSIX);
	for (i = 0; i < vectors; i++) {
		ret = devm_request_irq(&h->pdev->dev, pci_irq_vector(h->pdev, i), interrupt, 0,
				       "svio-hostile", h);
		if (ret)
			return ret;
	}
	return vectors < 0 ? vectors : 0;
}

static void stop(struct hostile *h)
{
	int i;

	for (i = 0; i < MAX_THREADS; i++) {
		if (!IS_ERR_OR_NULL(h->thread[i]))
			kthread_stop(h->thread[i]);
	}
	/* From here on the card has forgotten every address. */
	writel(SVIO_CONTROL_RESET, h->regs + SVIO_REG_CONTROL);
	while (!(readl(h->regs + SVIO_REG_STATUS) & SVIO_STATUS_READY))
		msleep(20);
	pci_clear_master(h->pdev);
}

static int start(struct hostile *h)
{
	struct hand *hand;
	int i;

	atomic_set(&h->running, threads);
	for (i = 0; i < threads; i++) {
		hand = kzalloc(sizeof(*hand), GFP_KERNEL);
		if (!hand)
			return -ENOMEM;
		hand->h = h;
		hand->state = (seed + 1) * 0x9e3779b97f4a7c15ULL + i;
		h->thread[i] = kthread_run(run, hand, "svio-hostile/%d", i);
		if (IS_ERR(h->thread[i])) {
			kfree(hand);
			return PTR_ERR(h->thread[i]);
		}
	}
	return 0;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct hostile *h = devm_kzalloc(&pdev->dev, sizeof(*h), GFP_KERNEL);
	int ret;

	if (!h)
		return -ENOMEM;
	if (!threads || threads > MAX_THREADS)
		return -EINVAL;
	h->pdev = pdev;
	pci_set_drvdata(pdev, h);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	ret = pcim_iomap_regions(pdev, BIT(SVIO_BAR_REGS), "svio-hostile");
	if (ret)
		return ret;
	h->regs = pcim_iomap_table(pdev)[SVIO_BAR_REGS];
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = prepare(h);
	if (!ret)
		ret = start(h);
	if (ret)
		stop(h);
	return ret;
}

static void forget(struct pci_dev *pdev)
{
	stop(pci_get_drvdata(pdev));
}

/* Empty: only what is told to by driver_override. */
static const struct pci_device_id hostile_ids[] = { { } };

static struct pci_driver hostile_driver = {
	.name = "svio-hostile",
	.id_table = hostile_ids,
	.probe = probe,
	.remove = forget,
	.dev_groups = hostile_groups,
};
module_pci_driver(hostile_driver);

MODULE_DESCRIPTION("A hostile guest of the svio card, for tests");
MODULE_LICENSE("GPL");
