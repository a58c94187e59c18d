// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "host.hpp"
#include "svio_abi.h"

#include <algorithm>

namespace svio {

/// No wire: VIFs of the board reach each other, and what would leave it is dropped (drop_tx_port_error).
class NoPort final : public Port {
  public:
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override {
        std::fill_n(verdicts.begin(), frames.size(), Verdict::Failed);
    }
    bool blocked() const override { return false; }
    size_t max_frame() const override { return SVIO_MESSAGE_MAX; }
};

} // namespace svio
