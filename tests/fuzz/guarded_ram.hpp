// SPDX-License-Identifier: GPL-2.0-or-later
/// Guest memory that knows which of its bytes the device may write, and when it may touch none at all.
#pragma once

#include "../unit/fake_guest.hpp"
#include "input.hpp"

#include <functional>

namespace svio::fuzz {

struct Range {
    uint64_t address;
    size_t length;
    bool overlaps(const Range &other) const {
        return address < other.address + other.length && other.address < address + length;
    }
    bool within(const Range &other) const {
        return address >= other.address && address - other.address <= other.length &&
               length <= other.length - (address - other.address);
    }
};

class GuardedRam final : public GuestMemory {
  public:
    static constexpr size_t size = size_t{160} << 10; ///< more than two of the longest messages

    explicit GuardedRam(bool direct) : ram(size, direct) {}

    bool read(uint64_t address, void *to, size_t length) override {
        MUST(!quiet);
        return ram.read(address, to, length);
    }
    bool write(uint64_t address, const void *from, size_t length) override {
        MUST(!quiet);
        may_write({address, length});
        bool reached = ram.write(address, from, length);
        if (reached)
            writes.push_back({address, length});
        return reached;
    }
    std::unique_ptr<Window> open(uint64_t address, size_t length) override {
        MUST(!quiet);
        auto inner = ram.open(address, length);
        if (!inner)
            return nullptr;
        return std::make_unique<Guarded>(*this, Range{address, length}, std::move(inner));
    }
    bool reaches(const Range &range) const { return range.within({test::FakeRam::base, size}); }

    test::FakeRam ram;
    bool quiet = false;                                ///< an access now is a bug
    std::vector<Range> writes;                         ///< of the device, since the owner emptied it
    std::function<void(const Range &range)> may_write; ///< a buffer
    /// A ring or an event block: whole window, then the part of it.
    std::function<void(const Range &window, size_t offset, size_t length)> may_store;

  private:
    class Guarded final : public Window {
      public:
        Guarded(GuardedRam &owner, Range range, std::unique_ptr<Window> inner)
            : owner_(owner), range_(range), inner_(std::move(inner)) {}
        bool load(size_t offset, void *to, size_t length) override {
            MUST(!owner_.quiet);
            return inner_->load(offset, to, length);
        }
        bool store(size_t offset, const void *from, size_t length) override {
            note(offset, length);
            return inner_->store(offset, from, length);
        }
        void written(size_t offset, size_t length) override {
            note(offset, length);
            inner_->written(offset, length);
        }
        uint8_t *direct() const override { return inner_->direct(); }

      private:
        void note(size_t offset, size_t length) {
            MUST(!owner_.quiet);
            owner_.may_store(range_, offset, length);
            owner_.writes.push_back({range_.address + offset, length});
        }
        GuardedRam &owner_;
        const Range range_;
        std::unique_ptr<Window> inner_;
    };
};

} // namespace svio::fuzz
