// SPDX-License-Identifier: GPL-2.0-or-later
/// `signals=shared` (SPEC.md 5.8): the original prototype's way. All VIFs have one interrupt and an
/// identifier of 8 bits between them, so whoever is told looks whether it was he who was meant.
#pragma once

#include "host.hpp"

#include <cstdint>
#include <deque>

namespace svio {

class Board;

class SharedSignals {
  public:
    static constexpr unsigned bits = 8;

    explicit SharedSignals(Board &board) : board_(board) {}

    /// The signals of the next slot, which go through here from now on.
    Signals &add(Signals &own);

    // ---- with the guest lock ----
    uint32_t identifier() const { return identifier_; }
    void clear(uint32_t which) { identifier_ &= ~which; }

  private:
    class Line final : public Signals {
      public:
        Line(SharedSignals &shared, unsigned slot, Signals &own) : shared_(shared), slot_(slot), own(own) {}
        void raise(unsigned vector) override { shared_.raise(slot_, vector); }

      private:
        SharedSignals &shared_;
        const unsigned slot_;

      public:
        Signals &own;
    };

    void raise(unsigned slot, unsigned vector);
    void raise_in_vain(unsigned slot);

    Board &board_;
    std::deque<Line> lines_; // by slot
    uint32_t identifier_ = 0;
};

} // namespace svio
