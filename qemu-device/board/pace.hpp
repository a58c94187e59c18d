// SPDX-License-Identifier: GPL-2.0-or-later
/// Tells a one-way stream of messages from a conversation.
///
/// A core that looks at its queue all the time picks each message of a stream up alone, and pays the lock,
/// the system call and a whole CPU for it, which the guest and the peer could use. In a stream nobody waits
/// for an answer, so the core may rest between looks and take several messages at once, much as a NIC
/// moderates interrupts under load. In a conversation each message is followed by one in the other direction,
/// and the core must not rest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace svio {

class Pace {
  public:
    static constexpr size_t window = 32;           ///< messages after which it is judged anew
    static constexpr uint64_t slow_ns = 60'000;    ///< a message each, and slower is no stream
    static constexpr uint64_t rest_ns = 50'000;    ///< how long to rest between looks
    static constexpr size_t replies_of_stream = 4; ///< at least so many sent for one received

    void sent(size_t n, uint64_t now) {
        if (sent_ == 0)
            since_ = now;
        sent_ += n;
        if (sent_ < window)
            return;
        streaming_ = now - since_ < slow_ns * sent_ && received_ * replies_of_stream < sent_;
        sent_ = received_ = 0;
    }
    void received(size_t n) { received_ += n; }
    /// A rest brought nothing: the stream has ended.
    void quiet() {
        streaming_ = false;
        sent_ = received_ = 0;
    }
    bool streaming() const { return streaming_; }

  private:
    size_t sent_ = 0;
    size_t received_ = 0;
    uint64_t since_ = 0;
    bool streaming_ = false;
};

} // namespace svio
