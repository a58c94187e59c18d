// SPDX-License-Identifier: GPL-2.0-or-later
/// A guest for the board: RAM, a big lock that knows its holder, signals that are written down, a clock that
/// stands still, and the bits that the tests use to wait and to make frames.
#pragma once

#include "board.hpp"
#include "svio_abi.h"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace svio::test {

using Frame = std::vector<uint8_t>;

inline constexpr Mac vif_mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
inline constexpr Mac peer_mac = {0x52, 0x54, 0x00, 0xab, 0xcd, 0xef};
inline constexpr Mac broadcast_mac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

#if defined(__SANITIZE_THREAD__)
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif

/// A frame whose every byte follows from its length and `sequence`.
inline Frame make_frame(size_t length, uint64_t sequence, const Mac &to = vif_mac,
                        const Mac &from = peer_mac) {
    Frame frame(length);
    // Not frame[i]: its check took half of all the time that fuzzing has.
    uint8_t *bytes = frame.data();
    for (size_t i = 0; i < length; i++)
        bytes[i] = static_cast<uint8_t>(sequence * 131 + i * 7 + (i >> 8));
    Frame head;
    head.insert(head.end(), to.begin(), to.end());
    head.insert(head.end(), from.begin(), from.end());
    head.insert(head.end(), {0x88, 0xb5});
    for (unsigned i = 0; i < 8; i++)
        head.push_back(static_cast<uint8_t>(sequence >> (8 * i)));
    std::copy_n(head.begin(), std::min(head.size(), length), frame.begin());
    return frame;
}

inline uint64_t sequence_of(const Frame &frame) {
    uint64_t sequence = 0;
    std::memcpy(&sequence, frame.data() + 14, 8);
    return sequence;
}

/// Waits for a condition. The deadline only ends a test that hangs.
inline bool eventually(const std::function<bool()> &condition) {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    for (unsigned n = 0; !condition(); n++) {
        if (std::chrono::steady_clock::now() > deadline)
            return false;
        if (n < 200)
            std::this_thread::yield();
        else
            std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
}

inline size_t entries_of(const char *folder) {
    size_t n = 0;
    for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator(folder))
        n++;
    return n;
}
inline size_t threads_now() {
    return entries_of("/proc/self/task");
}
inline size_t descriptors_now() {
    return entries_of("/proc/self/fd");
}

/// QEMU's big lock.
class BigLock final : public GuestLock {
  public:
    void lock() override {
        waiting++;
        mutex_.lock();
        waiting--;
        owner_ = std::this_thread::get_id();
        if (on_lock)
            std::exchange(on_lock, nullptr)();
    }
    void unlock() override {
        owner_ = std::thread::id();
        mutex_.unlock();
    }
    bool try_lock() override {
        if (!mutex_.try_lock())
            return false;
        owner_ = std::this_thread::get_id();
        return true;
    }
    bool mine() const { return owner_ == std::this_thread::get_id(); }
    std::atomic<int> waiting{0};
    std::function<void()> on_lock; ///< what the holder before us did, once

  private:
    std::mutex mutex_;
    std::atomic<std::thread::id> owner_{};
};

class ManualClock final : public Clock {
  public:
    uint64_t now() override { return now_.fetch_add(step) + step; }
    void forward(uint64_t ns) { now_ += ns; }
    std::atomic<uint64_t> step{0}; ///< each look costs so much

  private:
    std::atomic<uint64_t> now_{1'000'000};
};

/// Interrupts: written down, and a bell for guests that wait.
class SignalLog final : public Signals {
  public:
    explicit SignalLog(BigLock &lock) : lock_(lock) {}
    void raise(unsigned vector) override {
        EXPECT_TRUE(lock_.mine()) << "a signal without the guest lock";
        ASSERT_LT(vector, SVIO_VECTORS);
        std::lock_guard guard(mutex_);
        counts_[vector]++;
        changed_.notify_all();
    }
    uint64_t count(unsigned vector) const {
        std::lock_guard guard(mutex_);
        return counts_[vector];
    }
    uint64_t total() const {
        std::lock_guard guard(mutex_);
        uint64_t sum = 0;
        for (uint64_t n : counts_)
            sum += n;
        return sum;
    }
    /// Until the vector was raised more often than `seen`. False: never.
    bool wait(unsigned vector, uint64_t seen) {
        std::unique_lock guard(mutex_);
        return changed_.wait_for(guard, std::chrono::seconds(30), [&] { return counts_[vector] > seen; });
    }

  private:
    BigLock &lock_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::array<uint64_t, SVIO_VECTORS> counts_{};
};

class CountedHooks final : public ThreadHooks {
  public:
    void begin(unsigned) override { begun++; }
    void end(unsigned) override { ended++; }
    void polling(bool polls) override {
        polling_now += polls ? 1 : -1;
        said += polls;
    }
    std::atomic<int> begun{0};
    std::atomic<int> ended{0};
    std::atomic<int> polling_now{0};
    std::atomic<int> said{0};
};

/// RAM from `base` on, with holes. Windows are direct or slow.
class FakeRam final : public GuestMemory {
  public:
    static constexpr uint64_t base = 0x1'2340'0000;

    explicit FakeRam(size_t size, bool direct = true)
        : lines_((size + 63) / 64), size_(size), direct_(direct) {}

    bool read(uint64_t address, void *to, size_t length) override {
        if (on_read)
            on_read(address);
        accesses++;
        if (!reachable(address, length))
            return false;
        copy(static_cast<uint8_t *>(to), bytes() + (address - base), length);
        return true;
    }
    bool write(uint64_t address, const void *from, size_t length) override {
        accesses++;
        if (!reachable(address, length))
            return false;
        copy(bytes() + (address - base), static_cast<const uint8_t *>(from), length);
        return true;
    }
    bool show(uint64_t address, size_t length, Taker &taker) override {
        if (on_read)
            on_read(address);
        if (racy)
            return GuestMemory::show(address, length, taker);
        accesses++;
        shown += length;
        return reachable(address, length) && taker.take({bytes() + (address - base), length});
    }
    std::unique_ptr<Window> open(uint64_t address, size_t length) override {
        if (!reachable(address, length))
            return nullptr;
        return std::make_unique<RamWindow>(*this, address, length);
    }

    /// The test's own view.
    uint8_t *at(uint64_t address, size_t length = 1) {
        EXPECT_TRUE(address >= base && length <= size_ && address - base <= size_ - length);
        return bytes() + (address - base);
    }
    /// A store of the guest, byte by byte where the device may be reading there.
    void put(uint64_t address, const void *from, size_t length) {
        if (length != 0) // `from` may be null then
            copy(at(address, length), static_cast<const uint8_t *>(from), length);
    }
    uint32_t word(uint64_t address) {
        return __atomic_load_n(reinterpret_cast<uint32_t *>(at(address, 4)), __ATOMIC_ACQUIRE);
    }
    void set_word(uint64_t address, uint32_t value) {
        __atomic_store_n(reinterpret_cast<uint32_t *>(at(address, 4)), value, __ATOMIC_RELEASE);
    }
    void clear() { std::fill(lines_.begin(), lines_.end(), Line{}); }
    size_t size() const { return size_; }
    int windows() const { return windows_; }

    /// Guest memory that is not RAM. To be changed while no core runs.
    std::vector<std::pair<uint64_t, size_t>> holes;
    const BigLock *translator = nullptr;           ///< a virtual IOMMU: each access needs this lock
    std::function<void(uint64_t address)> on_read; ///< what the guest does while the device reads a buffer
    bool racy = false; ///< a hostile guest writes buffers while the device reads them
    std::atomic<uint64_t> accesses{0};
    std::atomic<uint64_t> written_bytes{0};
    std::atomic<uint64_t> shown{0}; ///< bytes that were copied from where they are

  private:
    struct alignas(64) Line {
        uint8_t bytes[64] = {};
    };

    class RamWindow final : public Window {
      public:
        RamWindow(FakeRam &ram, uint64_t address, size_t length)
            : ram_(ram), address_(address), length_(length) {
            ram_.windows_++;
        }
        ~RamWindow() override { ram_.windows_--; }
        bool load(size_t offset, void *to, size_t length) override {
            EXPECT_LE(offset + length, length_);
            if (!ram_.reachable(address_ + offset, length))
                return false;
            for (size_t i = 0; i < length; i += 4) {
                uint32_t word = ram_.word(address_ + offset + i);
                std::memcpy(static_cast<uint8_t *>(to) + i, &word, 4);
            }
            return true;
        }
        bool store(size_t offset, const void *from, size_t length) override {
            EXPECT_LE(offset + length, length_);
            if (!ram_.reachable(address_ + offset, length))
                return false;
            for (size_t i = 0; i < length; i += 4) {
                uint32_t word;
                std::memcpy(&word, static_cast<const uint8_t *>(from) + i, 4);
                ram_.set_word(address_ + offset + i, word);
            }
            return true;
        }
        void written(size_t offset, size_t length) override {
            EXPECT_LE(offset + length, length_);
            ram_.written_bytes += length;
        }
        uint8_t *direct() const override { return ram_.direct_ ? ram_.at(address_) : nullptr; }

      private:
        FakeRam &ram_;
        const uint64_t address_;
        const size_t length_;
    };

    uint8_t *bytes() { return lines_.front().bytes; }
    bool reachable(uint64_t address, size_t length) const {
        EXPECT_TRUE(!translator || translator->mine()) << "a translation without the guest lock";
        if (address < base || length > size_ || address - base > size_ - length)
            return false;
        for (auto [start, extent] : holes) {
            if (address < start + extent && start < address + length)
                return false;
        }
        return true;
    }
    void copy(uint8_t *to, const uint8_t *from, size_t length) const {
        if (!racy) {
            std::memmove(to, from, length); // from one place of the guest to another, perhaps
            return;
        }
        for (size_t i = 0; i < length; i++)
            __atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    }

    std::vector<Line> lines_;
    const size_t size_;
    const bool direct_;
    std::atomic<int> windows_{0};
};

} // namespace svio::test
