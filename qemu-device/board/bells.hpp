// SPDX-License-Identifier: GPL-2.0-or-later
/// Doorbells that are eventfds of another process, or of its kernel: the core that serves the queue sleeps on
/// them itself, so that nobody stands between the ring and the core.
#pragma once

#include "descriptor.hpp"

#include <cstddef>
#include <cstdint>

namespace svio {

/// Quiets an eventfd. How often it rang, as far as one counts; 0: it did not. Never waits, whatever its other
/// owner does to it meanwhile.
unsigned take_bell(const Descriptor &bell);

/// Those that a core sleeps on. Changed while the board is paused; take() is for an active core.
class Bells {
  public:
    Bells();
    /// Readable while one of them rings; -1: there are none.
    int fd() const { return count_ != 0 ? set_.get() : -1; }
    /// `slot` and `pair` come back from take().
    void add(const Descriptor &bell, uint32_t slot, unsigned pair);
    void remove(const Descriptor &bell);
    /// The kernel did not let one in: who sleeps must look by itself now and then.
    bool deaf() const { return deaf_ != 0; }
    /// Calls rung(slot, pair) for those that ring now, as many as are told at once: rung() quiets them.
    template <typename Rung> bool take(Rung rung) {
        Place places[at_once];
        size_t n = look(places);
        for (size_t i = 0; i < n; i++)
            rung(places[i].slot, places[i].pair);
        return n != 0;
    }

  private:
    static constexpr size_t at_once = 32;
    struct Place {
        uint32_t slot;
        uint32_t pair;
    };
    size_t look(Place *places) const;

    Descriptor set_;
    size_t count_ = 0;
    size_t deaf_ = 0;
};

} // namespace svio
