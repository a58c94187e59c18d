// SPDX-License-Identifier: GPL-2.0-or-later
#include "board_c.h"

#include "board.hpp"
#include "management_core.hpp"
#include "native_port.hpp"
#include "state.hpp"
#include "virtual_executor.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>

namespace {

using namespace svio;

class HostWindow final : public Window {
  public:
    HostWindow(const SvioFunctionHost &host, SvioWindow *window) : host_(host), window_(window) {}
    ~HostWindow() override { host_.window_close(host_.opaque, window_); }
    bool load(size_t offset, void *to, size_t length) override {
        return host_.window_load(host_.opaque, window_, offset, to, length);
    }
    bool store(size_t offset, const void *from, size_t length) override {
        return host_.window_store(host_.opaque, window_, offset, from, length);
    }
    void written(size_t offset, size_t length) override {
        host_.window_written(host_.opaque, window_, offset, length);
    }
    uint8_t *direct() const override { return window_->direct; }

  private:
    const SvioFunctionHost &host_;
    SvioWindow *window_;
};

class HostMemory final : public GuestMemory {
  public:
    explicit HostMemory(const SvioFunctionHost &host) : host_(host) {}
    bool read(uint64_t address, void *to, size_t length) override {
        return host_.read(host_.opaque, address, to, length);
    }
    bool write(uint64_t address, const void *from, size_t length) override {
        return host_.write(host_.opaque, address, from, length);
    }
    bool show(uint64_t address, size_t length, Taker &taker) override {
        auto take = [](void *to, const uint8_t *piece, size_t n) {
            return static_cast<Taker *>(to)->take({piece, n});
        };
        return host_.show(host_.opaque, address, length, take, &taker);
    }
    std::unique_ptr<Window> open(uint64_t address, size_t length) override {
        return open(address, length, true);
    }
    std::unique_ptr<Window> reopen(uint64_t address, size_t length) override {
        return open(address, length, false);
    }

  private:
    std::unique_ptr<Window> open(uint64_t address, size_t length, bool now) {
        SvioWindow *window = host_.window_open(host_.opaque, address, length, now);
        return window ? std::make_unique<HostWindow>(host_, window) : nullptr;
    }

    const SvioFunctionHost &host_;
};

class HostSignals final : public Signals {
  public:
    explicit HostSignals(const SvioFunctionHost &host) : host_(host) {}
    void raise(unsigned vector) override { host_.signal(host_.opaque, vector); }
    bool raise_unlocked(unsigned vector) override {
        return host_.signal_unlocked && host_.signal_unlocked(host_.opaque, vector);
    }

  private:
    const SvioFunctionHost &host_;
};

class HostLock final : public GuestLock {
  public:
    explicit HostLock(const SvioHost &host) : host_(host) {}
    void lock() override { host_.lock(host_.opaque); }
    void unlock() override { host_.unlock(host_.opaque); }

  private:
    const SvioHost &host_;
};

class HostHooks final : public ThreadHooks {
  public:
    explicit HostHooks(const SvioHost &host) : host_(host) {}
    void begin(unsigned core) override { host_.thread_begin(host_.opaque, core); }
    void end(unsigned core) override { host_.thread_end(host_.opaque, core); }
    void polling(bool polls) override { host_.thread_polling(host_.opaque, polls); }
    void attend() override {
        if (host_.attend)
            host_.attend(host_.opaque);
    }

  private:
    const SvioHost &host_;
};

class HostClock final : public Clock {
  public:
    explicit HostClock(const SvioHost &host) : host_(host) {}
    uint64_t now() override { return host_.now(host_.opaque); }

  private:
    const SvioHost &host_;
};

class HostAlarm final : public Alarm {
  public:
    explicit HostAlarm(const SvioHost &host) : host_(host) {}
    void set(uint64_t at) override { host_.alarm(host_.opaque, at); }

  private:
    const SvioHost &host_;
};

/// A QEMU netdev: it pushes frames into Board::receive() and takes them one by one. One that it cannot
/// deliver at once it keeps in a queue of its own, which it empties when the machine stops: then it comes
/// back, to be sent again before all others, by whoever has the machine then. Hence the copy.
class HostPort final : public Port {
  public:
    explicit HostPort(const SvioHost &host) : host_(host) {}
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override {
        uint32_t resets = resets_;
        if (came_back_) {
            std::vector<uint8_t> frame = std::move(kept_);
            came_back_ = false;
            offer(frame);
        }
        for (size_t i = 0; i < frames.size() && !blocked_ && resets_ == resets; i++) {
            // A reset from inside of the call: the frames after this one may belong to a life that is over.
            int taken = offer({static_cast<const uint8_t *>(frames[i].iov_base), frames[i].iov_len});
            verdicts[i] = taken < 0 ? Verdict::Failed : Verdict::Sent;
        }
    }
    bool blocked() const override { return blocked_; }
    bool wants_again() const override { return came_back_; }
    PortFrame kept() const override {
        if (!carries_ || kept_.size() < vnet_header_size)
            return {kept_};
        std::span<const uint8_t> frame = std::span(kept_).subspan(vnet_header_size);
        PortFrame kept{{frame.begin(), frame.end()}};
        read_vnet_header(kept_.data(), frame, kept.offload);
        return kept;
    }
    bool carries_offloads() const override { return carries_; }
    /// Before the first frame.
    void carry_offloads() { carries_ = true; }
    bool wants_guest_lock() const override { return true; }
    void flush_receive() override { host_.port_flush_receive(host_.opaque); }
    void purge(bool shared) override {
        resets_++; // with the guest lock, as send()
        if (shared)
            return;
        purges_++;
        host_.port_purge(host_.opaque);
        kept_.clear();
        came_back_ = false;
        blocked_ = false;
    }
    /// Of the frame that it keeps.
    void done(int result) {
        waiting_ = false;
        came_back_ = result == 0;
        if (!came_back_)
            kept_.clear();
        blocked_ = false;
    }
    size_t max_frame() const override { return SVIO_MESSAGE_MAX; }

  private:
    int offer(std::span<const uint8_t> frame) {
        uint32_t purges = purges_;
        // Before the call: its completion may run inside of it. But blocked_ only after it: another core that
        // saw it for a moment would go to sleep with its frames, and nobody would wake it.
        waiting_ = true;
        int taken = host_.port_send(host_.opaque, frame.data(), frame.size());
        if (taken != 0) {
            waiting_ = false;
        } else if (purges_ == purges) {
            if (waiting_ || came_back_)
                kept_.assign(frame.begin(), frame.end());
            blocked_ = waiting_;
        }
        return taken;
    }

    const SvioHost &host_;
    std::atomic<bool> blocked_{false};
    std::atomic<bool> came_back_{false}; // what the netdev kept
    bool waiting_ = false;               // done() is to come
    std::vector<uint8_t> kept_;
    uint32_t resets_ = 0;
    uint32_t purges_ = 0;
    bool carries_ = false;
};

} // namespace

static_assert(SVIO_STATE_MAX == state_size_max);

struct SvioBoard {
    explicit SvioBoard(const SvioHost &h)
        : host(h), lock(host), hooks(host), virtual_clock(host), alarm(host) {}

    struct Function {
        explicit Function(const SvioFunctionHost &h) : host(h), memory(host), signals(host) {}

        const SvioFunctionHost host;
        HostMemory memory;
        HostSignals signals;
        bool wants_lock = false; ///< to translate addresses
    };

    const SvioHost host;
    HostLock lock;
    HostHooks hooks;
    MonotonicClock clock;
    HostClock virtual_clock;
    HostAlarm alarm;
    GuestLock held;                            // in virtual time, when nothing runs without the lock
    std::unique_ptr<VirtualExecutor> executor; // null: threads
    std::deque<Function> functions;            // by slot
    HostPort *netdev = nullptr;                // the board's port, if it is one
    ManagementCoreConfig management_config;
    std::unique_ptr<Board> board;
    std::unique_ptr<ManagementCore> management; // from the start on
};

extern "C" {

SvioBoard *svio_board_new(const SvioHost *host, const SvioBoardConfig *config, char **error) {
    try {
        auto self = std::make_unique<SvioBoard>(*host);
        std::unique_ptr<Port> port;
        Clock &clock = config->virtual_time ? static_cast<Clock &>(self->virtual_clock) : self->clock;
        if (config->port) {
            std::string sentence;
            port = open_native_port(config->port, sentence, config->incoming, &clock,
                                    config->virtual_time ? config->message_cost_ns : 0);
            if (!port) {
                *error = strdup(sentence.c_str());
                return nullptr;
            }
        } else {
            auto netdev = std::make_unique<HostPort>(self->host);
            self->netdev = netdev.get();
            port = std::move(netdev);
        }
        BoardConfig board{.cores = config->cores,
                          .poll_us = config->poll_us,
                          .threads = !config->virtual_time,
                          .stall_ms = config->stall_ms,
                          .port_mbps = config->port_mbps,
                          .shared_signals = config->shared_signals,
                          .stage_times = config->stage_times};
        self->management_config.management = {.auto_vif = config->auto_vif,
                                              .port_mbps = config->port_mbps,
                                              .shared_signals = config->shared_signals};
        self->management_config.socket = config->mgmt ? config->mgmt : "";
        self->board = std::make_unique<Board>(board, config->virtual_time ? self->held : self->lock, clock,
                                              self->hooks, std::move(port));
        if (config->virtual_time)
            self->executor =
                std::make_unique<VirtualExecutor>(*self->board, self->alarm,
                                                  VirtualCosts{config->poll_cost_ns, config->message_cost_ns,
                                                               uint64_t{config->poll_us} * 1000});
        return self.release();
    } catch (const std::exception &e) {
        *error = strdup(e.what());
        return nullptr;
    }
}

bool svio_board_add_function(SvioBoard *board, const SvioFunctionHost *host, const SvioFunctionConfig *config,
                             char **error) {
    try {
        FunctionConfig vif{.slot = config->slot, .physical = config->slot == 0};
        std::copy_n(config->mac, vif.mac.size(), vif.mac.begin());
        vif.queue_pairs = std::max<uint32_t>(config->queue_pairs, 1);
        vif.queue_size_hint = config->queue_size;
        vif.queue_size_max = std::max<uint32_t>(config->queue_size, vif.queue_size_max);
        SvioBoard::Function &function = board->functions.emplace_back(*host);
        if (vif.physical)
            board->board->add_vif(vif, function.memory, function.signals);
        else
            board->board->add_function(vif, function.memory, function.signals);
        return true;
    } catch (const std::exception &e) {
        *error = strdup(e.what());
        return false;
    }
}

bool svio_board_start(SvioBoard *board, char **error) {
    try {
        // A PF alone has nothing to manage by it, and is migrated, which a queue like this is not.
        board->management_config.admin_size_max = board->functions.size() > 1 ? SVIO_ADMIN_QUEUE_MAX : 0;
        board->management = std::make_unique<ManagementCore>(*board->board, board->management_config);
        board->board->start();
        if (board->executor) {
            board->management->start(*board->executor);
            board->executor->start();
        } else {
            board->management->start();
        }
        return true;
    } catch (const std::exception &e) {
        *error = strdup(e.what());
        return false;
    }
}

void svio_board_stop(SvioBoard *board) {
    // First whoever gives commands: they wait for cores.
    if (board->management)
        board->management->stop();
    if (board->executor)
        board->executor->stop();
    board->board->stop();
}

void svio_board_remove_files(const SvioBoard *board) {
    board->board->port().remove_files();
    if (board->management)
        board->management->remove_files();
}

void svio_board_free(SvioBoard *board) {
    delete board;
}

uint32_t svio_board_read(SvioBoard *board, unsigned slot, uint32_t offset) {
    return board->board->vif(slot).read_register(offset);
}

void svio_board_write(SvioBoard *board, unsigned slot, uint32_t offset, uint32_t value) {
    board->board->vif(slot).write_register(offset, value);
}

void svio_board_bad_access(SvioBoard *board, unsigned slot) {
    board->board->vif(slot).bad_access();
}

void svio_board_reset(SvioBoard *board, unsigned slot) {
    board->board->vif(slot).reset();
}

void svio_board_enable(SvioBoard *board, unsigned slot, bool enabled) {
    if (board->management)
        board->management->management().enable(slot, enabled);
}

void svio_board_pause(SvioBoard *board) {
    board->board->pause();
}

void svio_board_resume(SvioBoard *board) {
    board->board->resume();
}

void svio_board_core_waits(SvioBoard *, bool waits) {
    Core::this_one_waits(waits);
}

void svio_board_set_dma(SvioBoard *board, unsigned slot, bool enabled, bool wants_lock) {
    board->board->vif(slot).set_dma(enabled);
    board->functions[slot].wants_lock = wants_lock;
    board->board->set_locked_rounds(std::any_of(board->functions.begin(), board->functions.end(),
                                                [](const auto &function) { return function.wants_lock; }));
}

void svio_board_alarm(SvioBoard *board) {
    board->executor->fire();
}

void svio_board_set_link(SvioBoard *board, bool up) {
    board->board->set_link(up);
}

void svio_board_port_done(SvioBoard *board, int result) {
    if (board->netdev)
        board->netdev->done(result);
    board->board->port_ready();
}

void svio_board_receive_ready(SvioBoard *board, unsigned slot) {
    board->board->receive_ready(board->board->vif(slot));
}

void svio_board_port_carries_offloads(SvioBoard *board) {
    board->netdev->carry_offloads();
}

bool svio_board_receive(SvioBoard *board, const uint8_t *frame, size_t length) {
    if (!board->netdev || !board->netdev->carries_offloads())
        return board->board->receive({frame, length});
    Offload offload;
    // Without a header in which there is sense it is a frame of no bytes, and counted as such.
    if (length < vnet_header_size ||
        !read_vnet_header(frame, {frame + vnet_header_size, length - vnet_header_size}, offload))
        return board->board->receive({});
    return board->board->receive({frame + vnet_header_size, length - vnet_header_size}, offload);
}

uint8_t *svio_board_save(SvioBoard *board, size_t *length) {
    try {
        std::vector<uint8_t> state = board->board->save();
        auto *copy = static_cast<uint8_t *>(malloc(state.size()));
        if (copy)
            std::copy(state.begin(), state.end(), copy);
        *length = state.size();
        return copy;
    } catch (const std::exception &) {
        return nullptr;
    }
}

bool svio_board_load(SvioBoard *board, const uint8_t *state, size_t length, char **error) {
    try {
        board->board->load({state, length});
        return true;
    } catch (const std::exception &e) {
        *error = strdup(e.what());
        return false;
    }
}

bool svio_board_link_up(SvioBoard *board, unsigned slot) {
    return board->board->vif(slot).link_up();
}

bool svio_board_port_activate(SvioBoard *board, char **error) {
    std::string sentence;
    if (board->board->port().activate(sentence))
        return true;
    *error = strdup(sentence.c_str());
    return false;
}

void svio_board_port_release(SvioBoard *board) {
    board->board->port().release();
}

char *svio_board_query(SvioBoard *board, const char *what) {
    try {
        return board->management ? strdup(board->management->query(what).c_str()) : nullptr;
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void svio_board_visit_counters(SvioBoard *board, SvioVisitor *visit, void *opaque) {
    board->board->visit_counters(
        [&](const std::string &path, uint64_t value) { visit(opaque, path.c_str(), value); });
}

} // extern "C"
