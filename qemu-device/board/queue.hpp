// SPDX-License-Identifier: GPL-2.0-or-later
/// Message queues in guest memory (SPEC.md chapter 5): a send queue that is collected from and a receive
/// queue that is delivered to.
///
/// Threads: start() and stop() run while the board is paused. Of a send queue everything else is used by the
/// core that serves it; of a receive queue by whoever holds `mutex`.
#pragma once

#include "counters.hpp"
#include "host.hpp"
#include "offload.hpp"
#include "rss.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace svio {

/// Registers of a queue, as the driver wrote them.
struct QueueRegisters {
    uint64_t base = 0;
    uint64_t event = 0;
    uint32_t size = 0;
    uint32_t vector = SVIO_NO_VECTOR;
    uint32_t moderation = 0;
};

/// What else a queue is, but for its counters: what a state holds of it.
struct QueueState {
    QueueRegisters regs;
    uint32_t state = SVIO_QUEUE_DISABLED; ///< as the register: error << 8 too
    uint32_t position = 0;
    uint32_t signal_from = 0;
    uint32_t held_messages = 0;
    uint64_t held_ns = 0; ///< for so long
    bool error_news = false;

    template <typename Archive> void fields(Archive &archive) {
        archive(regs.base);
        archive(regs.event);
        archive(regs.size);
        archive(regs.vector);
        archive(regs.moderation);
        archive(state);
        archive(position);
        archive(signal_from);
        archive(held_messages);
        archive(held_ns);
        archive(error_news);
    }
};

/// What both directions share: the ring, the arm words, state, signals.
class Queue {
  public:
    QueueRegisters regs;
    QueueCounters counters;
    uint64_t features = 0; ///< in force; of the VIF, changed while the board is paused
    uint32_t index = 0;    ///< of its pair

    /// For migration, while the board is paused. load() believes what check() has let through.
    QueueState save(Clock &clock) const;
    void load(const QueueState &from, GuestMemory &memory, Clock &clock);
    /// Throws StateError.
    static void check(const QueueState &state, uint32_t max_size);

    /// Opens ring and event block; on failure the queue is in the error state.
    void start(GuestMemory &memory, uint32_t max_size);
    void stop();
    void fail(uint32_t code);

    bool running() const { return state() == SVIO_QUEUE_RUNNING; }
    uint32_t state() const { return state_.load(std::memory_order_relaxed) & 0xff; }
    uint32_t state_register() const { return state_.load(std::memory_order_relaxed); }
    uint32_t position() const { return position_.load(std::memory_order_relaxed); }
    /// An error that nobody has been told of yet; asking clears it.
    bool take_error() { return error_news_.exchange(false, std::memory_order_relaxed); }
    bool has_error_news() const { return error_news_.load(std::memory_order_relaxed); }

    /// Is there an entry at the device's position (plus `ahead`)?
    bool posted(uint32_t ahead = 0);
    /// Ask for a doorbell when position() + ahead is posted. True: it already is, do not sleep.
    bool arm_bell(uint32_t ahead = 0);

    /// True if the vector is to be raised for what has completed. Honours moderation unless `now_or_never`.
    bool signal_due(Clock &clock, bool now_or_never);
    bool signal_held() const { return signal_from_ != position(); }

  protected:
    bool load_flags(uint32_t position, uint32_t &flags);
    bool load_entry(uint32_t position, svio_entry &entry);
    bool store_word(Window &window, size_t offset, uint32_t value);
    /// What was held back and the driver has polled meanwhile needs no signal: the time of what completes
    /// from here on starts anew. Only while all up to position() is published.
    void drop_moot_signal();
    /// Completed up to position() + n. Must come after the data is visible.
    void advance(uint32_t n, uint32_t messages, Clock &clock);
    bool is_posted(uint32_t position, uint32_t flags) const {
        return (flags >> 31) == svio_lap(position, regs.size);
    }

    std::unique_ptr<Window> ring_;
    std::unique_ptr<Window> event_;

  private:
    static bool configuration_ok(const QueueRegisters &regs, uint32_t max_size);
    bool wants_signal();

    std::atomic<uint32_t> state_{SVIO_QUEUE_DISABLED};
    std::atomic<uint32_t> position_{0};
    std::atomic<bool> error_news_{false};
    uint32_t signal_from_ = 0;
    uint32_t held_messages_ = 0;
    uint64_t held_since_ = 0;
};

/// A message to be delivered: its head in the device's own memory, where no guest can change it any more, and
/// what follows either there or still in its sender's.
struct Message {
    explicit Message(std::span<const uint8_t> whole, const Offload &fields = {})
        : head(whole), size(whole.size()), offload(fields) {}
    Message(std::span<const uint8_t> first, std::span<const uint8_t> second)
        : head(first), tail(second), size(first.size() + second.size()) {}
    /// The tail: `entries` without their first `skip` bytes.
    Message(std::span<const uint8_t> first, GuestMemory &from, std::span<const svio_entry> entries,
            size_t skipped, size_t length)
        : head(first), memory(&from), rest(entries), skip(skipped), size(first.size() + length) {}

    std::span<const uint8_t> head;
    std::span<const uint8_t> tail;
    GuestMemory *memory = nullptr;
    std::span<const svio_entry> rest;
    size_t skip = 0;
    size_t size;
    Offload offload{};

    /// All of it, in order. False: the sender's memory cannot be reached, or `taker` had enough.
    bool show(Taker &taker) const;
};

/// A message at the position of a send queue, whose bytes are still where the guest has them. Entries were
/// read once, and checked.
struct Chain {
    std::array<svio_entry, SVIO_CHAIN_MAX> entries;
    uint32_t count = 0;
    uint32_t length = 0;
    uint32_t flags = 0; ///< of the head
    Offload offload;

    std::span<const svio_entry> all() const { return std::span(entries).first(count); }
};

/// A frame on its way out, copied from guest memory.
struct Staged {
    class Vif *vif;
    uint32_t pair;
    uint32_t offset;
    uint32_t length;
    bool counted; ///< as sent: by the device that this one has taken over from
    Offload offload;
    uint32_t segment = 0;     ///< the next one, where the port gets a message in pieces
    uint64_t switched_at = 0; ///< see stage_times.hpp
    bool operator==(const Staged &) const = default;
};

/// Where a core keeps what it has collected until the port has taken it. Bounded.
class Outbox {
  public:
    static constexpr size_t max_frames = 64;
    /// Before each frame, for what is put there on its way out: a cache line.
    static constexpr size_t headroom = 64;
    static constexpr size_t slab_size =
        4 * (size_t{SVIO_MESSAGE_MAX} + headroom) + (max_frames + 1) * headroom;

    Outbox() : slab_(slab_size) {}
    bool empty() const { return head_ == frames_.size(); }
    /// Room for one more message of any length?
    bool has_room() const {
        return frames_.size() < max_frames && used_ + headroom + SVIO_MESSAGE_MAX <= slab_size;
    }
    uint8_t *tail() { return slab_.data() + used_ + headroom; }
    void push(class Vif *vif, uint32_t pair, uint32_t length, const Offload &offload = {},
              bool counted = false, uint32_t segment = 0);
    std::span<const Staged> frames() const { return std::span(frames_).subspan(head_); }
    std::span<Staged> frames() { return std::span(frames_).subspan(head_); }
    uint8_t *data(const Staged &frame) { return slab_.data() + frame.offset; }
    const uint8_t *data(const Staged &frame) const { return slab_.data() + frame.offset; }
    void pop(size_t n);
    /// Removes what came from a queue pair, and hands it over.
    template <typename Visit> void take(const class Vif *vif, uint32_t pair, Visit visit) {
        for (const Staged &frame : frames()) {
            if (frame.vif == vif && frame.pair == pair)
                visit(frame, std::span<const uint8_t>(data(frame), frame.length));
        }
        forget([=](const Staged &frame) { return frame.vif == vif && frame.pair == pair; });
    }
    /// Removes all frames of a VIF and tells how many.
    size_t purge(const class Vif *vif);
    /// How often purge() was called: what frames() gave before the last one is stale.
    uint32_t purges() const { return purges_; }

  private:
    template <typename Which> size_t forget(Which which) {
        purges_++;
        frames_.erase(frames_.begin(), frames_.begin() + static_cast<ptrdiff_t>(head_));
        head_ = 0;
        size_t gone = std::erase_if(frames_, which);
        pop(0);
        return gone;
    }

    std::vector<uint8_t> slab_;
    std::vector<Staged> frames_;
    size_t head_ = 0;
    size_t used_ = 0;
    uint32_t purges_ = 0;
};

class SendQueue : public Queue {
  public:
    /// For stage_times.hpp; 0: unknown.
    struct Times {
        uint64_t empty_at = 0;            ///< the last look that found nothing more
        uint64_t done_at = 0;             ///< the first completion that was not signalled yet
        std::atomic<uint64_t> rung_at{0}; ///< the last doorbell: of any thread
    } times;

    /// Collects up to `budget` messages into the outbox and completes them; those that the driver loops back
    /// go to the VIF at once. Returns how many it took, and of these `looped`.
    size_t collect(class Vif &vif, GuestMemory &memory, Outbox &outbox, size_t budget, Clock &clock,
                   size_t &looped);

    // ---- the same one by one, for messages that go through the switch ----
    /// The next message, which stays where it is. False: there is none, or the queue has failed.
    bool peek(Chain &chain);
    /// Copies `length` bytes of it from `skip` on. False: the queue has failed.
    bool copy(GuestMemory &memory, const Chain &chain, size_t skip, size_t length, uint8_t *to);
    /// Before the first complete() of a batch, and after its last.
    void begin_batch() { drop_moot_signal(); }
    void end_batch() { publish_done(); }
    void complete(const Chain &chain, Clock &clock);

  private:
    /// Reads the chain at position(). 0: nothing there, or the queue has failed; else the entries used.
    uint32_t read_message(GuestMemory &memory, uint8_t *to, uint32_t &length, uint32_t &head_flags,
                          Offload &offload);
    uint32_t take_entry(GuestMemory &memory, uint32_t at, uint32_t n, svio_entry &entry, uint8_t *to,
                        uint32_t length);
    uint32_t check_entry(uint32_t at, uint32_t n, svio_entry &entry, uint32_t length);
    uint32_t check_flags(const svio_entry &entry, bool head) const;
    uint32_t check_offload(const Offload &offload, uint32_t length) const;
    void publish_done();
};

class ReceiveQueue : public Queue {
  public:
    /// Broken: the sender's memory is out of reach; nothing was taken. Malformed: nothing that could be
    /// delivered can be made of the message.
    enum class Result { Delivered, Full, TooLong, Failed, Broken, Malformed };

    std::mutex mutex;

    /// Writes one message into the next buffers. `missing` is the distance to the buffer that lacked (Full).
    /// `head_flags` are added to the head's.
    Result deliver(GuestMemory &memory, const Message &message, bool chains, Clock &clock, uint32_t &missing,
                   uint32_t head_flags = 0, const FlowHash &hash = {});

  private:
    bool complete(const svio_entry &entry, uint32_t position);
    Result gather(size_t size, bool chains, uint32_t &n, uint32_t &missing);

    std::array<svio_entry, SVIO_CHAIN_MAX> chain_{};
};

} // namespace svio
