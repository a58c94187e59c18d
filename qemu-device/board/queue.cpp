// SPDX-License-Identifier: GPL-2.0-or-later
#include "queue.hpp"

#include "vif.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace svio {

// Entries and arm words are copied between guest and host as they are.
static_assert(std::endian::native == std::endian::little, "the board runs on little-endian hosts");

bool GuestMemory::show(uint64_t address, size_t length, Taker &taker) {
    std::array<uint8_t, 4096> bounce;
    while (length > 0) {
        size_t piece = std::min(length, bounce.size());
        if (!read(address, bounce.data(), piece) || !taker.take(std::span(bounce).first(piece)))
            return false;
        address += piece;
        length -= piece;
    }
    return true;
}

namespace {

void full_fence() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

uint32_t load32(const uint8_t *at, int order) {
    return order == __ATOMIC_ACQUIRE
               ? __atomic_load_n(reinterpret_cast<const uint32_t *>(at), __ATOMIC_ACQUIRE)
               : __atomic_load_n(reinterpret_cast<const uint32_t *>(at), __ATOMIC_RELAXED);
}

// Word by word, so that each word of guest memory is read exactly once.
void load_words(const uint8_t *at, void *to, size_t length) {
    for (size_t i = 0; i < length; i += 4) {
        uint32_t word = load32(at + i, __ATOMIC_RELAXED);
        std::memcpy(static_cast<uint8_t *>(to) + i, &word, 4);
    }
}

void store_words(uint8_t *at, const void *from, size_t length) {
    for (size_t i = 0; i < length; i += 4) {
        uint32_t word;
        std::memcpy(&word, static_cast<const uint8_t *>(from) + i, 4);
        __atomic_store_n(reinterpret_cast<uint32_t *>(at + i), word, __ATOMIC_RELAXED);
    }
}

constexpr size_t flags_at = offsetof(svio_entry, flags);
constexpr size_t signal_at = offsetof(svio_queue_event, signal_at);
constexpr size_t bell_at = offsetof(svio_queue_event, bell_at);
constexpr size_t done_at = offsetof(svio_queue_event, done);

} // namespace

// ---- both directions ----

bool Queue::configuration_ok(const QueueRegisters &regs, uint32_t max_size) {
    return std::has_single_bit(regs.size) && regs.size >= SVIO_QUEUE_MIN && regs.size <= max_size &&
           regs.base % SVIO_QUEUE_ALIGN == 0 && regs.event % SVIO_QUEUE_ALIGN == 0 &&
           (regs.vector < SVIO_VECTORS || regs.vector == SVIO_NO_VECTOR);
}

void Queue::start(GuestMemory &memory, uint32_t max_size) {
    position_ = signal_from_ = held_messages_ = 0;
    if (!configuration_ok(regs, max_size)) {
        fail(SVIO_QERR_CONFIG);
        return;
    }
    ring_ = memory.open(regs.base, size_t{regs.size} * sizeof(svio_entry));
    event_ = memory.open(regs.event, sizeof(svio_queue_event));
    if (!ring_ || !event_ || !store_word(*event_, bell_at, 0) || !store_word(*event_, done_at, 0)) {
        fail(SVIO_QERR_DMA);
        return;
    }
    state_ = SVIO_QUEUE_RUNNING;
}

void Queue::stop() {
    ring_.reset();
    event_.reset();
    state_ = SVIO_QUEUE_DISABLED;
    position_ = signal_from_ = held_messages_ = 0;
    error_news_ = false;
}

void Queue::fail(uint32_t code) {
    if (state() == SVIO_QUEUE_ERROR)
        return; // the first cause counts, and once
    state_ = SVIO_QUEUE_ERROR | code << 8;
    counters.add(SVIO_QSTAT_ERRORS);
    static_assert(SVIO_QSTAT_ERROR_OFFLOAD - SVIO_QSTAT_ERROR_CONFIG == SVIO_QERR_OFFLOAD - SVIO_QERR_CONFIG);
    counters.add(SVIO_QSTAT_ERROR_CONFIG + (code - SVIO_QERR_CONFIG));
    error_news_ = true;
}

bool Queue::load_flags(uint32_t position, uint32_t &flags) {
    size_t offset = size_t{position & (regs.size - 1)} * sizeof(svio_entry) + flags_at;
    if (ring_->direct()) [[likely]] {
        // Acquire: the rest of the entry was written before its flags.
        flags = load32(ring_->direct() + offset, __ATOMIC_ACQUIRE);
        return true;
    }
    if (!ring_->load(offset, &flags, sizeof(flags)))
        return false;
    std::atomic_thread_fence(std::memory_order_acquire); // as above
    return true;
}

// Everything but the flags, which the caller has read before.
bool Queue::load_entry(uint32_t position, svio_entry &entry) {
    size_t offset = size_t{position & (regs.size - 1)} * sizeof(svio_entry);
    if (ring_->direct()) [[likely]] {
        load_words(ring_->direct() + offset, &entry, flags_at);
        return true;
    }
    return ring_->load(offset, &entry, flags_at);
}

bool Queue::store_word(Window &window, size_t offset, uint32_t value) {
    if (!window.direct())
        return window.store(offset, &value, sizeof(value));
    __atomic_store_n(reinterpret_cast<uint32_t *>(window.direct() + offset), value, __ATOMIC_RELEASE);
    window.written(offset, sizeof(value));
    return true;
}

bool Queue::posted(uint32_t ahead) {
    uint32_t flags;
    if (!load_flags(position() + ahead, flags)) {
        fail(SVIO_QERR_DMA);
        return false;
    }
    return is_posted(position() + ahead, flags);
}

bool Queue::arm_bell(uint32_t ahead) {
    if (!store_word(*event_, bell_at, position() + ahead)) {
        fail(SVIO_QERR_DMA);
        return false;
    }
    counters.add(SVIO_QSTAT_BELLS_ARMED);
    // Closes the race with a driver that posts, then reads bell_at before our store reached it:
    // either it sees the store and rings, or we see the entry here.
    full_fence();
    return posted(ahead);
}

bool Queue::wants_signal() {
    uint32_t at = 0;
    if (event_->direct())
        at = load32(event_->direct() + signal_at, __ATOMIC_RELAXED);
    else if (!event_->load(signal_at, &at, sizeof(at)))
        return false;
    return svio_crossed(at, signal_from_, position());
}

void Queue::drop_moot_signal() {
    if (!regs.moderation || !signal_held())
        return;
    // Closes the same race as in signal_due(): what we have published must be visible before we read
    // signal_at, or a driver that armed for it goes to sleep and we forget that it waits.
    full_fence();
    if (wants_signal())
        return;
    counters.add(SVIO_QSTAT_SIGNALS_SUPPRESSED);
    signal_from_ = position();
    held_messages_ = 0;
}

void Queue::advance(uint32_t n, uint32_t messages, Clock &clock) {
    if (regs.moderation && !signal_held())
        held_since_ = clock.now();
    position_.store(position() + n, std::memory_order_relaxed);
    held_messages_ += messages;
    counters.add(SVIO_QSTAT_POSTED, n);
    counters.add(SVIO_QSTAT_MESSAGES, messages);
}

bool Queue::signal_due(Clock &clock, bool now_or_never) {
    if (!running() || !signal_held())
        return false;
    uint32_t frames = regs.moderation >> 16;
    uint64_t hold_ns = uint64_t{regs.moderation & 0xffff} * 1000;
    if (!now_or_never && regs.moderation && (!frames || held_messages_ < frames) &&
        clock.now() - held_since_ < hold_ns)
        return false;
    // Closes the race with a driver that arms signal_at, then looks for completions before ours reached
    // it: either we see its arm word, or it sees the completion.
    full_fence();
    bool wanted = wants_signal();
    signal_from_ = position();
    held_messages_ = 0;
    if (regs.vector == SVIO_NO_VECTOR)
        wanted = false;
    counters.add(wanted ? SVIO_QSTAT_SIGNALS : SVIO_QSTAT_SIGNALS_SUPPRESSED);
    return wanted;
}

// ---- outbox ----

void Outbox::push(Vif *vif, uint32_t pair, uint32_t length, const Offload &offload, bool counted,
                  uint32_t segment) {
    frames_.push_back(
        {vif, pair, static_cast<uint32_t>(used_ + headroom), length, counted, offload, segment});
    // The next frame starts on a cache line of its own.
    used_ += headroom + ((size_t{length} + 63) & ~size_t{63});
}

void Outbox::pop(size_t n) {
    head_ += n;
    if (empty()) {
        frames_.clear();
        head_ = used_ = 0;
    }
}

size_t Outbox::purge(const Vif *vif) {
    return forget([vif](const Staged &f) { return f.vif == vif; });
}

// ---- sending ----

namespace {

constexpr uint32_t offloads = SVIO_ENTRY_CSUM | SVIO_ENTRY_SEG | SVIO_ENTRY_VLAN;

Offload offload_of(const svio_entry &head) {
    return {.flags = head.flags & offloads,
            .csum_start = head.csum_start,
            .csum_offset = head.csum_offset,
            .seg_size = head.seg_size,
            .seg_header = head.seg_header,
            .vlan_tci = head.vlan_tci,
            .seg_type = head.seg_type};
}

} // namespace

uint32_t SendQueue::check_flags(const svio_entry &entry, bool head) const {
    constexpr uint32_t plain = SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE | SVIO_ENTRY_MORE;
    uint32_t special = entry.flags & ~plain;
    if (special == 0) [[likely]]
        return SVIO_QERR_NONE;
    constexpr uint64_t segments = SVIO_F_SEG_TCP4 | SVIO_F_SEG_TCP6 | SVIO_F_SEG_UDP;
    uint32_t allowed = (features & SVIO_F_LOOPBACK ? SVIO_ENTRY_LOOP : 0) |
                       (features & SVIO_F_CSUM_TX ? SVIO_ENTRY_CSUM : 0) |
                       (features & segments ? SVIO_ENTRY_SEG : 0) |
                       (features & SVIO_F_VLAN_TX ? SVIO_ENTRY_VLAN : 0);
    return !head || (special & ~allowed) ? SVIO_QERR_FLAGS : SVIO_QERR_NONE;
}

// Of a message that is whole.
uint32_t SendQueue::check_offload(const Offload &offload, uint32_t length) const {
    if (offload_needs(offload) & ~features)
        return SVIO_QERR_FLAGS;
    return offload_fits(offload, length) ? SVIO_QERR_NONE : SVIO_QERR_OFFLOAD;
}

// One entry of a chain, whose flags are in `entry` already.
uint32_t SendQueue::check_entry(uint32_t at, uint32_t n, svio_entry &entry, uint32_t length) {
    if (!is_posted(at, entry.flags))
        return SVIO_QERR_TORN;
    if (n == SVIO_CHAIN_MAX || n == regs.size)
        return SVIO_QERR_CHAIN;
    if (!load_entry(at, entry))
        return SVIO_QERR_DMA;
    if (uint32_t error = check_flags(entry, n == 0))
        return error;
    if (entry.len == 0)
        return SVIO_QERR_EMPTY;
    if (entry.len > SVIO_MESSAGE_MAX - length)
        return SVIO_QERR_LENGTH;
    return SVIO_QERR_NONE;
}

// The same, and copies its buffer.
uint32_t SendQueue::take_entry(GuestMemory &memory, uint32_t at, uint32_t n, svio_entry &entry, uint8_t *to,
                               uint32_t length) {
    if (uint32_t error = check_entry(at, n, entry, length))
        return error;
    return memory.read(entry.addr, to + length, entry.len) ? SVIO_QERR_NONE : SVIO_QERR_DMA;
}

uint32_t SendQueue::read_message(GuestMemory &memory, uint8_t *to, uint32_t &length, uint32_t &head_flags,
                                 Offload &offload) {
    svio_entry entry;
    length = 0;
    for (uint32_t n = 0;; n++) {
        uint32_t at = position() + n;
        uint32_t error = SVIO_QERR_NONE;
        if (!load_flags(at, entry.flags))
            error = SVIO_QERR_DMA;
        else if (n == 0 && !is_posted(at, entry.flags))
            return 0;
        else
            error = take_entry(memory, at, n, entry, to, length);
        if (error != SVIO_QERR_NONE) {
            fail(error);
            return 0;
        }
        if (n == 0) {
            head_flags = entry.flags;
            if (head_flags & offloads)
                offload = offload_of(entry);
        }
        length += entry.len;
        if (entry.flags & SVIO_ENTRY_MORE)
            continue;
        if (head_flags & offloads)
            error = check_offload(offload, length);
        if (error == SVIO_QERR_NONE)
            return n + 1;
        fail(error);
        return 0;
    }
}

void SendQueue::publish_done() {
    if (!store_word(*event_, done_at, position()))
        fail(SVIO_QERR_DMA);
}

size_t SendQueue::collect(Vif &vif, GuestMemory &memory, Outbox &outbox, size_t budget, Clock &clock,
                          size_t &looped) {
    size_t taken = 0;
    looped = 0;
    while (taken < budget && outbox.has_room()) {
        uint32_t length, head_flags;
        Offload offload;
        uint32_t entries = read_message(memory, outbox.tail(), length, head_flags, offload);
        if (entries == 0)
            break;
        // Before the first alone: from then on position() is ahead of what is published.
        if (taken == 0)
            drop_moot_signal();
        if (head_flags & SVIO_ENTRY_LOOP) {
            vif.loop({outbox.tail(), length}, offload, index);
            looped++;
        } else {
            outbox.push(&vif, index, length, offload);
        }
        counters.add(SVIO_QSTAT_BYTES, length);
        if (entries > 1)
            counters.add(SVIO_QSTAT_CHAINED);
        advance(entries, 1, clock);
        taken++;
    }
    if (taken)
        publish_done();
    return taken;
}

bool SendQueue::peek(Chain &chain) {
    chain.length = 0;
    for (uint32_t n = 0;; n++) {
        svio_entry &entry = chain.entries[std::min<uint32_t>(n, SVIO_CHAIN_MAX - 1)];
        uint32_t at = position() + n, flags;
        uint32_t error = SVIO_QERR_NONE;
        if (!load_flags(at, flags))
            error = SVIO_QERR_DMA;
        else if (n == 0 && !is_posted(at, flags))
            return false;
        else {
            svio_entry next;
            next.flags = flags;
            error = check_entry(at, n, next, chain.length);
            if (error == SVIO_QERR_NONE)
                entry = next;
        }
        if (error != SVIO_QERR_NONE) {
            fail(error);
            return false;
        }
        chain.length += entry.len;
        if (flags & SVIO_ENTRY_MORE)
            continue;
        chain.count = n + 1;
        chain.flags = chain.entries[0].flags;
        chain.offload = chain.flags & offloads ? offload_of(chain.entries[0]) : Offload{};
        if (chain.flags & offloads)
            error = check_offload(chain.offload, chain.length);
        if (error == SVIO_QERR_NONE)
            return true;
        fail(error);
        return false;
    }
}

bool SendQueue::copy(GuestMemory &memory, const Chain &chain, size_t skip, size_t length, uint8_t *to) {
    for (const svio_entry &entry : chain.all()) {
        if (length == 0)
            break;
        if (skip >= entry.len) {
            skip -= entry.len;
            continue;
        }
        size_t piece = std::min<size_t>(entry.len - skip, length);
        if (!memory.read(entry.addr + skip, to, piece)) {
            fail(SVIO_QERR_DMA);
            return false;
        }
        to += piece;
        length -= piece;
        skip = 0;
    }
    return true;
}

void SendQueue::complete(const Chain &chain, Clock &clock) {
    counters.add(SVIO_QSTAT_BYTES, chain.length);
    if (chain.count > 1)
        counters.add(SVIO_QSTAT_CHAINED);
    advance(chain.count, 1, clock);
}

// ---- receiving ----

bool Message::show(Taker &taker) const {
    if (!taker.take(head) || !taker.take(tail))
        return false;
    size_t ahead = skip;
    for (const svio_entry &entry : rest) {
        if (ahead >= entry.len) {
            ahead -= entry.len;
            continue;
        }
        if (!memory->show(entry.addr + ahead, entry.len - ahead, taker))
            return false;
        ahead = 0;
    }
    return true;
}

bool ReceiveQueue::complete(const svio_entry &entry, uint32_t position) {
    size_t offset = size_t{position & (regs.size - 1)} * sizeof(svio_entry);
    if (!ring_->direct()) {
        if (!ring_->store(offset, &entry, flags_at))
            return false;
        std::atomic_thread_fence(std::memory_order_release); // as below
        return ring_->store(offset + flags_at, &entry.flags, sizeof(entry.flags));
    }
    store_words(ring_->direct() + offset, &entry, flags_at);
    // Release: a driver that sees DONE sees buffer and entry.
    __atomic_store_n(reinterpret_cast<uint32_t *>(ring_->direct() + offset + flags_at), entry.flags,
                     __ATOMIC_RELEASE);
    ring_->written(offset, sizeof(entry));
    return true;
}

namespace {

/// Fills buffers of a guest one after the other.
class Scatter final : public Taker {
  public:
    Scatter(GuestMemory &memory, std::span<svio_entry> buffers) : memory_(memory), buffers_(buffers) {}
    bool take(std::span<const uint8_t> piece) override {
        while (!piece.empty()) {
            const svio_entry &buffer = buffers_[n_];
            size_t length = std::min<size_t>(buffer.len - used_, piece.size());
            if (!memory_.write(buffer.addr + used_, piece.data(), length)) {
                failed = true;
                return false;
            }
            piece = piece.subspan(length);
            used_ += static_cast<uint32_t>(length);
            if (used_ == buffer.len && n_ + 1 < buffers_.size()) {
                n_++;
                used_ = 0;
            }
        }
        return true;
    }
    /// Of the last buffer.
    uint32_t used() const { return used_; }
    bool failed = false;

  private:
    GuestMemory &memory_;
    std::span<svio_entry> buffers_;
    size_t n_ = 0;
    uint32_t used_ = 0;
};

} // namespace

// Buffers for so many bytes, into chain_: their number is `n`.
ReceiveQueue::Result ReceiveQueue::gather(size_t size, bool chains, uint32_t &n, uint32_t &missing) {
    size_t found = 0;
    n = 0;
    while (found < size) {
        if (n == SVIO_CHAIN_MAX || n == regs.size || (n == 1 && !chains))
            return Result::TooLong;
        svio_entry &entry = chain_[n];
        uint32_t flags;
        bool reached = load_flags(position() + n, flags);
        if (reached && !is_posted(position() + n, flags)) {
            missing = n;
            counters.add(SVIO_QSTAT_FULL);
            return Result::Full;
        }
        if (!reached || !load_entry(position() + n, entry) || entry.len == 0) {
            fail(reached && entry.len == 0 ? SVIO_QERR_EMPTY : SVIO_QERR_DMA);
            return Result::Failed;
        }
        found += entry.len;
        n++;
    }
    return Result::Delivered;
}

ReceiveQueue::Result ReceiveQueue::deliver(GuestMemory &memory, const Message &message, bool chains,
                                           Clock &clock, uint32_t &missing, uint32_t head_flags,
                                           const FlowHash &hash) {
    uint32_t n;
    drop_moot_signal();
    if (Result result = gather(message.size, chains, n, missing); result != Result::Delivered)
        return result;
    Scatter scatter(memory, std::span(chain_).first(n));
    if (!message.show(scatter)) {
        if (!scatter.failed)
            return Result::Broken;
        fail(SVIO_QERR_DMA);
        return Result::Failed;
    }
    chain_[n - 1].len = scatter.used();
    // The head goes last: it publishes the whole chain.
    for (uint32_t i = n; i-- > 0;) {
        uint32_t lap = svio_lap(position() + i, regs.size);
        svio_entry done{};
        done.addr = chain_[i].addr;
        done.len = chain_[i].len;
        done.flags = (lap ? SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE : 0) | (i + 1 < n ? SVIO_ENTRY_MORE : 0);
        if (i == 0)
            done.flags |= head_flags;
        if (const Offload &offload = message.offload; i == 0 && offload.flags != 0) {
            done.flags |= offload.flags;
            done.csum_start = offload.csum_start;
            done.csum_offset = offload.csum_offset;
            done.seg_size = offload.seg_size;
            done.seg_header = offload.seg_header;
            done.vlan_tci = offload.vlan_tci;
            done.seg_type = offload.seg_type;
        }
        if (i == 0 && hash.type != SVIO_HASH_NONE) {
            done.hash = hash.value;
            done.hash_type = hash.type;
            done.flags |= SVIO_ENTRY_HASH;
        }
        if (!complete(done, position() + i)) {
            fail(SVIO_QERR_DMA);
            return Result::Failed;
        }
    }
    counters.add(SVIO_QSTAT_BYTES, message.size);
    if (n > 1)
        counters.add(SVIO_QSTAT_CHAINED);
    advance(n, 1, clock);
    return Result::Delivered;
}

} // namespace svio
