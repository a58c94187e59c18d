// SPDX-License-Identifier: GPL-2.0-or-later
/// How long messages take from stage to stage (SPEC.md 14.1): histograms of a core, which only it writes.
///
/// The clock is read once for each stage of a round, so all messages of a round have the round's times. While
/// it is off each call is a test of one word.
#pragma once

#include "host.hpp"
#include "queue.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace svio {

/// Four buckets in each doubling: a value is known to a quarter. One writer, any readers.
class Histogram {
  public:
    static constexpr unsigned steps = 4;
    /// The last one has all from 60 s on.
    static constexpr size_t buckets = steps * 35;

    static size_t bucket_of(uint64_t value) {
        if (value < steps)
            return static_cast<size_t>(value);
        unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 3;
        return std::min<size_t>((shift + 1) * steps + ((value >> shift) & (steps - 1)), buckets - 1);
    }
    /// The least value of a bucket.
    static uint64_t least(size_t bucket) {
        if (bucket < steps)
            return bucket;
        return (steps + bucket % steps) << (bucket / steps - 1);
    }
    void add(uint64_t value, uint64_t n) {
        std::atomic<uint64_t> &count = count_[bucket_of(value)];
        count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    uint64_t get(size_t bucket) const { return count_[bucket].load(std::memory_order_relaxed); }

  private:
    std::array<std::atomic<uint64_t>, buckets> count_{};
};

/// Each counts the nanoseconds since the stage before it.
#define SVIO_STAGES(X)                                                                                       \
    X(SendPickedUp, "send/picked_up")                                                                        \
    X(SendSwitched, "send/switched")                                                                         \
    X(SendDelivered, "send/delivered")                                                                       \
    X(SendSignalled, "send/signalled")                                                                       \
    X(ReceiveDelivered, "receive/delivered")                                                                 \
    X(ReceiveSignalled, "receive/signalled")

enum Stage : size_t {
#define X(name, text) Stage##name,
    SVIO_STAGES(X)
#undef X
        StageCount
};

extern const std::array<const char *, StageCount> stage_names;

class StageTimes {
  public:
    explicit StageTimes(bool on) : on_(on) {}
    bool on() const { return on_; }
    uint64_t read(Clock &clock) const { return on_ ? clock.now() : 0; }
    const Histogram &of(Stage stage) const { return histograms_[stage]; }

    /// A round begins: what it finds now is picked up now.
    void begin(Clock &clock) {
        if (!on_) [[likely]]
            return;
        phase_ = now_ = clock.now();
        picked_ = given_ = 0;
    }
    /// A descriptor has rung: it does not say when.
    void woken(uint64_t time) { woken_at_ = time; }
    /// A look at the queue found no message (any more).
    void empty(SendQueue &queue) const {
        if (on_)
            queue.times.empty_at = now_;
    }
    void picked_up(SendQueue &queue, uint64_t n);
    /// Put into a receive queue.
    void gave() { given_ += on_; }
    /// The messages of send queues are with their receivers, or in the outbox.
    void switched(Clock &clock, Outbox &outbox);
    /// So are those of the port.
    void received(Clock &clock) {
        if (given_ != 0)
            end_phase(clock);
    }
    /// The port has this one.
    void sent(const Staged &frame, uint64_t now) {
        if (on_ && frame.switched_at != 0)
            add(StageSendDelivered, now, frame.switched_at);
    }
    /// Since when completed messages of the queue wait for a signal.
    uint64_t completed_at(SendQueue &queue) const;
    uint64_t delivered_at() const { return on_ ? phase_ : 0; }
    void signalled(Stage stage, uint64_t since, Clock &clock) {
        if (on_ && since != 0)
            add(stage, clock.now(), since);
    }

  private:
    void end_phase(Clock &clock);
    void add(Stage stage, uint64_t now, uint64_t since, uint64_t n = 1) {
        histograms_[stage].add(now > since ? now - since : 0, n);
    }

    const bool on_;
    uint64_t now_ = 0;      // when the round began,
    uint64_t phase_ = 0;    // and its last stage ended
    uint64_t switched_ = 0; // and what it took from send queues was switched
    uint64_t woken_at_ = 0;
    uint64_t picked_ = 0, given_ = 0; // in this round, and not yet counted
    std::array<Histogram, StageCount> histograms_;
};

} // namespace svio
