// SPDX-License-Identifier: GPL-2.0-or-later
#include "core.hpp"

#include "board.hpp"
#include "virtual_executor.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <system_error>
#include <time.h>
#include <unistd.h>
#include <utility>

namespace svio {

namespace {

constexpr uint64_t budget_start_ns = 10'000;
constexpr uint64_t deaf_ns = 1'000'000;
constexpr uint32_t cpu_rounds = 1024;

thread_local Core *this_core = nullptr;

uint64_t thread_cpu_ns() {
    timespec ts{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(ts.tv_nsec);
}

} // namespace

uint64_t MonotonicClock::now() {
    timespec ts{};
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(ts.tv_nsec);
}

Core::Core(Board &board, unsigned index, uint32_t poll_us, bool stage_times)
    : board_(board), index_(index), poll_max_ns_(uint64_t{poll_us} * 1000), poll_ns_(poll_max_ns_),
      times_(stage_times), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
}

Core::~Core() {
    stop();
    close(wake_fd_);
}

void Core::serve(Vif &vif, unsigned pair) {
    watch(vif, pair);
    served_.push_back({&vif, pair});
    auto client = std::find_if(clients_.begin(), clients_.end(), [&](auto &c) { return c.vif == &vif; });
    if (client == clients_.end()) {
        clients_.push_back({.vif = &vif, .parts = {}});
        client = clients_.end() - 1;
    }
    client->parts.push_back({.pair = pair});
}

void Core::leave(Vif &vif, unsigned pair) {
    unwatch(vif, pair);
    std::erase_if(served_, [&](const Served &s) { return s.vif == &vif && s.pair == pair; });
    for (Client &client : clients_) {
        if (client.vif == &vif)
            std::erase_if(client.parts, [&](auto &part) { return part.pair == pair; });
        client.next = 0;
    }
    std::erase_if(clients_, [](auto &client) { return client.parts.empty(); });
    first_ = first_client_ = 0;
}

// The order within each direction stays: what was taken here goes first over there, before anything that is
// still in the queue.
void Core::hand_over(Vif &vif, unsigned pair, Core &to) {
    leave(vif, pair);
    outbox_.take(&vif, pair, [&](const Staged &frame, std::span<const uint8_t> data) {
        to.loaded_.push_back(
            {frame.vif, frame.pair, frame.counted, {data.begin(), data.end()}, frame.offload, frame.segment});
    });
    for (const Moving::Sent &sent : loaded_) {
        if (sent.vif == &vif && sent.pair == pair)
            to.loaded_.push_back(sent);
    }
    std::erase_if(loaded_, [&](const Moving::Sent &s) { return s.vif == &vif && s.pair == pair; });
    std::scoped_lock guard(backlog_mutex_, to.backlog_mutex_);
    std::erase_if(backlog_, [&](Backlogged &b) {
        if (b.vif != &vif || vif.route(b.frame).pair != pair)
            return false;
        to.backlog_.push_back(std::move(b));
        return true;
    });
    to.backlog_waiter_ |= backlog_waiter_;
    if (backlog_.empty() && std::exchange(backlog_waiter_, false))
        flush_port_at_ = 1; // long since
    for (Core *core : {this, &to})
        core->backlog_size_.store(core->backlog_.size(), std::memory_order_release);
    to.serve(vif, pair);
}

void Core::start() {
    stopping_ = false;
    thread_ = std::thread([this] { run(); });
}

void Core::stop() {
    if (!thread_.joinable())
        return;
    stopping_ = true;
    wake();
    board_.unpark();
    thread_.join();
}

// ---- being active ----

bool Core::enter() {
    active_.store(active, std::memory_order_seq_cst);
    // Sequentially consistent, as is Board::pause(): either the pauser sees us active and waits, or we see
    // its pause and stay out.
    if (!board_.paused()) [[likely]]
        return true;
    leave();
    return false;
}

void Core::leave() {
    active_.store(inactive, std::memory_order_seq_cst);
    active_.notify_all();
}

// The pauser has the guest lock, as a rule, and so is the one that an active core may be waiting for.
void Core::wait_inactive() {
    while (uint32_t state = active_.load(std::memory_order_seq_cst)) {
        if (state == active) {
            active_.wait(active, std::memory_order_seq_cst);
        } else {
            board_.hooks().attend();
            sched_yield(); // until it has seen that it need not wait any more
        }
    }
}

void Core::this_one_waits(bool waits) {
    if (!this_core)
        return;
    this_core->active_.store(waits ? waiting : active, std::memory_order_seq_cst);
    this_core->active_.notify_all();
}

void Core::wake() {
    // Sequentially consistent against sleep(): either it sees the poke, or we see it asleep.
    poked_.store(true, std::memory_order_seq_cst);
    if (executor_)
        return executor_->woken(index_);
    if (sleeping_.load(std::memory_order_seq_cst)) {
        uint64_t one = 1;
        // A full counter (EAGAIN) wakes as well.
        [[maybe_unused]] ssize_t n = write(wake_fd_, &one, sizeof(one));
    }
}

// ---- one round ----

bool Core::round() {
    bool found = while_active([this] { return step(); });
    return flush() || found;
}

// False if the core may not be active now, else what `work` says.
template <typename Work> bool Core::while_active(Work work) {
    // Behind a virtual IOMMU a translation may need the guest lock: take it before becoming active.
    bool locked = board_.locked_rounds();
    if (locked)
        board_.lock().lock();
    bool result = false;
    if (enter()) {
        // It changes while the board is paused only, but that may have been since we asked.
        if (locked == board_.locked_rounds())
            result = work();
        note_waiting();
        leave();
    }
    if (locked)
        board_.lock().unlock();
    return result;
}

// The outbox and the signals belong to the core while it is active, and else to the holder of the guest lock
// (a reset empties them): without either the core goes by this note of them. It may be out of date, no more.
void Core::note_waiting() {
    frames_wait_ = !outbox_.empty();
    signals_wait_ = !signals_.empty();
}

bool Core::step() {
    counters.add(CorePolls);
    times_.begin(board_.clock());
    bool found = poked_.load(std::memory_order_relaxed) && poked_.exchange(false, std::memory_order_seq_cst);
    if (was_rung_) [[unlikely]]
        found |= take_bells();
    if (!loaded_.empty()) [[unlikely]]
        refill();
    found |= board_.cable() ? serve_send() : serve_switched();
    times_.switched(board_.clock(), outbox_);
    if (uint64_t time = flush_port_at_.load(std::memory_order_relaxed);
        time && board_.clock().now() >= time) {
        flush_port_at_ = 0;
        found = flush_port_ = true;
    }
    // With a native port only a loaded state leaves a backlog, and that came first.
    if (has_backlog())
        found |= drain_backlog();
    if (serves_port_ && !has_backlog())
        found |= board_.cable() ? serve_receive_port() : serve_switched_port();
    times_.received(board_.clock());
    if (announce_.load(std::memory_order_relaxed)) [[unlikely]]
        announce();
    if (!board_.port().wants_guest_lock())
        found |= drain_outbox();
    found |= drop_stalled();
    collect_signals(false);
    raise_unlocked();
    if (!found)
        counters.add(CoreEmptyPolls);
    return found;
}

// What was collected leaves before more is taken. Another queue begins each time: the outbox may be full
// before the last one's turn.
bool Core::serve_send() {
    size_t n = served_.size();
    if (n == 0 || !outbox_.empty())
        return false;
    bool found = false;
    for (size_t i = 0; i < n; i++)
        found |= collect_from(served_[first_ + i < n ? first_ + i : first_ + i - n]);
    first_ = first_ + 1 < n ? first_ + 1 : 0;
    return found;
}

bool Core::collect_from(const Served &served) {
    Vif &vif = *served.vif;
    SendQueue &queue = vif.pair(served.pair).send;
    if (!vif.active() || !queue.running()) {
        times_.empty(queue);
        return false;
    }
    size_t looped;
    size_t n = queue.collect(vif, vif.memory(), outbox_, batch, board_.clock(), looped);
    times_.picked_up(queue, n);
    if (n < batch && outbox_.has_room())
        times_.empty(queue);
    if (n == 0)
        return false;
    if (looped != 0)
        note_delivered(vif, served.pair);
    counters.add(CorePickedUp, n);
    pace_.sent(n, board_.clock().now());
    return true;
}

bool Core::serve_receive_port() {
    Port &port = board_.port();
    Vif &vif = board_.sole();
    bool any = false;
    hold_port_ = false;
    for (size_t n = 0; n < batch && port.fill(); n++) {
        Vif::Arrival arrival{.segment = port_segment_};
        Vif::Delivery outcome = give(vif, Message(port.front(), port.front_offload()), arrival, Vif::Terms{});
        port_segment_ = outcome == Vif::Delivery::Full ? arrival.segment : 0;
        if (outcome == Vif::Delivery::Full) {
            hold_port_ = true;
            note_lack(vif, arrival);
            break;
        }
        counters.add(CoreSwitched);
        port.pop();
        pace_.received(1);
        any = true;
    }
    return any;
}

// A message to a VIF, by this core, which will signal what was delivered.
Vif::Delivery Core::give(Vif &vif, const Message &message, Vif::Arrival &arrival, const Vif::Terms &terms) {
    Vif::Delivery outcome = vif.receive(message, arrival, terms);
    if (arrival.delivered != 0)
        note_delivered(vif, arrival.pair);
    if (outcome == Vif::Delivery::Delivered) {
        counters.add(CoreDelivered);
        times_.gave();
    }
    return outcome;
}

void Core::note_lack(Vif &vif, const Vif::Arrival &arrival) {
    lacks_ = {&vif, arrival.pair};
    missing_ = arrival.missing;
    patience_until_ = arrival.until;
}

void Core::note_delivered(Vif &vif, unsigned pair) {
    auto same = [&](const Served &s) { return s.vif == &vif && s.pair == pair; };
    if (std::none_of(delivered_.begin(), delivered_.end(), same))
        delivered_.push_back({{&vif, pair}});
}

void Core::flush_port_at(uint64_t time) {
    flush_port_at_.store(time, std::memory_order_relaxed);
    wake(); // a sleeping core would not come to know of it
}

bool Core::push_backlog(Vif &vif, std::vector<uint8_t> frame, const Offload &offload, uint32_t segment,
                        bool sorted) {
    {
        std::lock_guard guard(backlog_mutex_);
        if (backlog_.size() == backlog_max)
            return false;
        backlog_.push_back({&vif, std::move(frame), sorted, offload, segment});
        backlog_size_.store(backlog_.size(), std::memory_order_release);
    }
    counters.add(CoreBacklogged);
    wake();
    return true;
}

bool Core::behind_backlog() {
    std::lock_guard guard(backlog_mutex_);
    if (backlog_.empty())
        return false;
    return backlog_waiter_ = true;
}

bool Core::drain_backlog() {
    // Held only around the list, so that code under the guest lock never waits for a delivery.
    bool any = false;
    for (;;) {
        std::unique_lock guard(backlog_mutex_);
        if (backlog_.empty()) {
            flush_port_ |= std::exchange(backlog_waiter_, false);
            return any;
        }
        Backlogged &next = backlog_.front(); // stays put: only this core pops, and push_back moves nothing
        guard.unlock();
        Vif::Arrival arrival{.segment = next.segment};
        Vif::Delivery outcome = give(*next.vif, Message(next.frame, next.offload), arrival,
                                     {.filtered = !next.sorted, .patient = !board_.shared()});
        if (outcome == Vif::Delivery::Full) {
            next.segment = arrival.segment;
            note_lack(*next.vif, arrival);
            return any;
        }
        counters.add(CoreSwitched);
        any = true;
        guard.lock();
        backlog_.pop_front();
        backlog_size_.store(backlog_.size(), std::memory_order_release);
    }
}

bool Core::drain_outbox() {
    return !outbox_.empty() && send_outbox();
}

// Why the port cannot have it, SVIO_STAT_COUNT: it can.
svio_stat Core::refusal(const Staged &frame) const {
    const Offload &offload = frame.offload;
    size_t length = frame.length;
    if (offload.has(SVIO_ENTRY_SEG))
        length = std::min<size_t>(length, size_t{offload.seg_header} + offload.seg_size);
    if (frame.length < SVIO_FRAME_MIN)
        return SVIO_STAT_DROP_TX_RUNT;
    if (length > board_.port().max_frame())
        return SVIO_STAT_DROP_TX_OVERSIZE;
    if (!frame.vif->link_up())
        return SVIO_STAT_DROP_TX_LINK_DOWN;
    if (offload.has(SVIO_ENTRY_SEG) && !Segmenter({outbox_.data(frame), frame.length}, offload).valid())
        return SVIO_STAT_DROP_TX_OFFLOAD;
    return SVIO_STAT_COUNT;
}

// Segments from the next one on, as many as there is room for. False: not all.
bool Core::offer_pieces(Staged &frame, Offer &to) {
    constexpr size_t room = 2 * size_t{SVIO_MESSAGE_MAX};
    if (pieces_.empty())
        pieces_.resize(room);
    Segmenter cut({outbox_.data(frame), frame.length}, frame.offload);
    Staged piece = frame;
    for (; piece.segment < cut.count(); piece.segment++) {
        size_t length = cut.length(piece.segment);
        if (to.count == Outbox::max_frames || to.cut + length > room)
            return false;
        cut.write(piece.segment, pieces_.data() + to.cut);
        to.frames[to.count] = {pieces_.data() + to.cut, length};
        to.of[to.count] = piece;
        to.last[to.count++] = piece.segment + 1 == cut.count();
        to.cut += (length + 63) & ~size_t{63};
    }
    return true;
}

// As the port takes it. False: it is full for this time.
bool Core::offer(Staged &frame, Offer &to) {
    if (to.count == Outbox::max_frames)
        return false;
    size_t header = 0;
    uint8_t *data = outbox_.data(frame);
    if (board_.port().carries_offloads()) {
        header = vnet_header_size;
        write_vnet_header({data, frame.length}, frame.offload, data - header);
    } else if (frame.offload.has(SVIO_ENTRY_SEG)) {
        return offer_pieces(frame, to);
    } else if (frame.offload.has(SVIO_ENTRY_CSUM)) {
        insert_checksum({data, frame.length}, frame.offload);
    }
    to.frames[to.count] = {data - header, frame.length + header};
    to.of[to.count] = frame;
    to.last[to.count++] = true;
    return true;
}

// True if any frame left. The guest lock is held if the port wants it.
bool Core::send_outbox() {
    Offer offered;
    for (Staged &frame : outbox_.frames()) {
        if (frame.offload.has(SVIO_ENTRY_VLAN)) {
            insert_vlan(outbox_.data(frame), frame.offload);
            frame.offset -= vlan_tag_size;
            frame.length += vlan_tag_size;
        }
        svio_stat reason = refusal(frame);
        if (reason != SVIO_STAT_COUNT) {
            if (offered.count != 0)
                break; // what is before it goes first
            frame.vif->counters.add(reason);
            outbox_.pop(1);
            return true;
        }
        if (!offer(frame, offered))
            break;
    }
    std::array<Verdict, Outbox::max_frames> verdicts{};
    board_.port().send(std::span(offered.frames).first(offered.count),
                       std::span(verdicts).first(offered.count));
    return settle(offered, verdicts);
}

// Takes what the port has dealt with out of the outbox. A netdev may lead to a card whose interrupt is a
// write to our registers: a reset inside of send() has taken that VIF's frames out already, and counted them.
bool Core::settle(const Offer &offered, std::span<const Verdict> verdicts) {
    size_t dealt = 0;
    bool purged = false;
    const uint64_t now = times_.read(board_.clock());
    for (; dealt < offered.count && verdicts[dealt] != Verdict::Pending; dealt++) {
        const Staged &frame = offered.of[dealt];
        if (outbox_.empty() || outbox_.frames().front() != frame) {
            purged = true;
            continue;
        }
        VifCounters &vif = frame.vif->counters;
        if (verdicts[dealt] == Verdict::Failed) {
            vif.add(SVIO_STAT_DROP_TX_PORT_ERROR);
        } else if (!frame.counted) {
            vif.add(SVIO_STAT_TX_FRAMES);
            vif.add(SVIO_STAT_TX_BYTES, offered.frames[dealt].iov_len -
                                            (board_.port().carries_offloads() ? vnet_header_size : 0));
        }
        counters.add(CoreSwitched);
        if (offered.last[dealt] && verdicts[dealt] == Verdict::Sent)
            times_.sent(frame, now);
        if (offered.last[dealt])
            outbox_.pop(1);
        else
            outbox_.frames().front().segment++;
    }
    if (dealt != 0)
        stuck_since_ = 0;
    if (dealt < offered.count && !purged)
        counters.add(CorePortBlocked);
    return dealt != 0;
}

// A port that takes nothing (its other end does not read) holds frames back, but not for ever: a driver would
// take its queue for hung. When it is over, a frame is dropped at once until the port takes one again.
bool Core::drop_stalled() {
    if (!board_.port().blocked()) {
        stuck_since_ = 0;
        return false;
    }
    if (outbox_.empty() || board_.stall_ns() == 0)
        return false;
    uint64_t now = board_.clock().now();
    if (stuck_since_ == 0)
        stuck_since_ = now;
    if (now - stuck_since_ < board_.stall_ns())
        return false;
    std::span<const Staged> frames = outbox_.frames();
    for (const Staged &frame : frames)
        frame.vif->counters.add(SVIO_STAT_DROP_TX_STALLED);
    outbox_.pop(frames.size());
    return true;
}

// When frames for a blocked port are dropped, 0: never.
uint64_t Core::stall_time() const {
    if (!frames_wait_ || !board_.port().blocked() || board_.stall_ns() == 0)
        return 0;
    return (stuck_since_ ? stuck_since_ : board_.clock().now()) + board_.stall_ns();
}

// What needs the guest lock: frames for a netdev, interrupts, news of errors.
bool Core::flush() {
    bool again = board_.port().wants_again();
    bool sends = board_.port().wants_guest_lock() && (frames_wait_ || again) && !board_.port().blocked();
    bool news = board_.has_error_news();
    bool balances = board_.balance_due();
    if (signals_wait_ || sends || news || flush_port_)
        board_.lock().lock();
    else if (!balances || !board_.lock().try_lock()) // the next time is soon enough for balancing
        return false;
    counters.add(CoreLockTaken);
    bool found = false;
    // With the guest lock nobody can begin a pause, but one may be in force (a stopped machine): then all
    // this waits until it is over.
    if (!board_.paused()) {
        raise_signals();
        if (sends && again)
            board_.port().send({}, {});
        while (sends && !outbox_.empty() && send_outbox())
            found = true;
        if (std::exchange(flush_port_, false))
            board_.port().flush_receive();
        if (news)
            board_.report_errors();
        if (balances)
            board_.balance();
    }
    note_waiting();
    board_.lock().unlock();
    return found;
}

size_t Core::purge(Vif &vif) {
    std::erase_if(signals_, [&](const Signal &s) { return s.vif == &vif; });
    std::erase_if(delivered_, [&](const Served &s) { return s.vif == &vif; });
    size_t received = 0;
    {
        std::lock_guard guard(backlog_mutex_);
        received = std::erase_if(backlog_, [&](const Backlogged &b) { return b.vif == &vif; });
        backlog_size_.store(backlog_.size(), std::memory_order_release);
    }
    vif.counters.add(SVIO_STAT_DROP_RX_RESET, received);
    received = std::erase_if(loaded_, [&](const Moving::Sent &s) { return s.vif == &vif; });
    return received + outbox_.purge(&vif);
}

// ---- the thread ----

void Core::run() {
    std::string name = "svio-core" + std::to_string(index_);
    pthread_setname_np(pthread_self(), name.c_str());
    prctl(PR_SET_TIMERSLACK, 1UL); // rest() means what it says
    this_core = this;
    board_.hooks().begin(index_);
    uint64_t idle_since = 0;
    uint32_t rounds = 0;
    while (!stopping_.load(std::memory_order_relaxed)) {
        if (board_.paused()) {
            say_polling(false);
            counters.add(CoreParks);
            cpu_ns_.store(thread_cpu_ns(), std::memory_order_relaxed);
            // The word changes at resume and at stop; read before what it stands for is checked again.
            uint32_t word = board_.park_word().load();
            if (board_.paused() && !stopping_)
                board_.park_word().wait(word);
            stuck_since_ = 0; // nobody could have sent meanwhile
            continue;
        }
        if (++rounds % cpu_rounds == 0) // one that never sleeps is told of too
            cpu_ns_.store(thread_cpu_ns(), std::memory_order_relaxed);
        if (round()) {
            idle_since = 0;
            continue;
        }
        if (tokens_at_ != 0) { // it knows when there is something to do
            say_polling(false);
            sleep();
            idle_since = 0;
            continue;
        }
        if (pace_.streaming()) {
            say_polling(false);
            rest();
            continue;
        }
        uint64_t now = board_.clock().now();
        if (idle_since == 0)
            idle_since = now;
        if (now - idle_since < poll_ns_ && !board_.locked_rounds()) {
            // A spinning core must not stand in the way of those whom its frames have woken: on a machine of
            // two CPUs the peer may have been put behind it.
            say_polling(true);
            sched_yield();
            continue;
        }
        say_polling(false);
        sleep();
        idle_since = 0;
    }
    say_polling(false);
    board_.hooks().end(index_);
}

void Core::say_polling(bool polls) {
    if (polls != polling_)
        board_.hooks().polling(polling_ = polls);
}

// Not active meanwhile, and no doorbell is armed: the next look follows in any case.
void Core::rest() {
    counters.add(CoreRests);
    timespec time{0, static_cast<long>(Pace::rest_ns)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
    if (!round())
        pace_.quiet();
}

// True if something is there after all.
bool Core::arm_all() {
    bool there = false;
    // What was rung for before is seen below, and would end the sleep at once.
    take_bells();
    bells_fd_ = bells_.fd();
    deaf_ = bells_.deaf();
    lack_fd_ = -1;
    for (const Client &client : clients_) {
        for (const Client::Part &part : client.parts) {
            SendQueue &queue = client.vif->pair(part.pair).send;
            // No bell helps one that waits for the port or for its rate.
            if (!board_.cable() && client.vif->active() && queue.running() && !part.waits)
                there |= queue.arm_bell();
        }
    }
    for (const Served &served : served_) {
        Queue &queue = served.vif->pair(served.pair).send;
        // With a blocked port the send queue has to wait: no bell helps.
        if (board_.cable() && served.vif->active() && queue.running() && outbox_.empty())
            there |= queue.arm_bell();
    }
    if ((hold_port_ || has_backlog()) && lacks_.vif && lacks_.vif->active()) {
        ReceiveQueue &queue = lacks_.vif->receive_queue(lacks_.pair);
        std::lock_guard lock(queue.mutex);
        if (queue.running())
            there |= queue.arm_bell(missing_);
        lack_fd_ = lacks_.vif->pair(lacks_.pair).bells[SVIO_RECEIVE].get();
    }
    return there;
}

// When a core that sleeps has to look again by itself, 0: never.
uint64_t Core::wake_time() const {
    uint64_t first = 0;
    for (uint64_t time : {hold_port_ || has_backlog() ? patience_until_ : 0,
                          flush_port_at_.load(std::memory_order_relaxed), stall_time(), tokens_at_}) {
        if (time != 0 && (first == 0 || time < first))
            first = time;
    }
    return first;
}

uint64_t Core::due() const {
    uint64_t own = wake_time();
    uint64_t port = serves_port_ && !hold_port_ && !has_backlog() ? board_.port().due() : 0;
    return own == 0 || (port != 0 && port < own) ? port : own;
}

void Core::parked() {
    counters.add(CoreParks);
    stuck_since_ = 0; // nobody could have sent meanwhile
}

bool Core::prepare_sleep() {
    bool armed = while_active([this] {
        bool there = arm_all();
        collect_signals(true);
        raise_unlocked();
        return !there;
    });
    flush();
    return armed;
}

void Core::sleep() {
    sleeping_.store(true, std::memory_order_seq_cst);
    // Sequentially consistent against wake(): what was poked before we said that we sleep is seen here.
    if (prepare_sleep() && !poked_.load(std::memory_order_seq_cst) && !stopping_ && !board_.paused()) {
        Port &port = board_.port();
        std::array<pollfd, 5> fds{};
        nfds_t n = 0;
        fds[n++] = {wake_fd_, POLLIN, 0};
        if (serves_port_ && !hold_port_ && !has_backlog() && port.receive_fd() >= 0)
            fds[n++] = {port.receive_fd(), POLLIN, 0};
        if (frames_wait_ && port.send_fd() >= 0)
            fds[n++] = {port.send_fd(), POLLOUT, 0};
        nfds_t ports = n;
        for (int fd : {bells_fd_, lack_fd_}) {
            if (fd >= 0)
                fds[n++] = {fd, POLLIN, 0};
        }
        counters.add(CoreSleeps);
        cpu_ns_.store(thread_cpu_ns(), std::memory_order_relaxed);
        uint64_t before = board_.clock().now();
        uint64_t until = wake_time();
        if (deaf_ && (until == 0 || until > before + deaf_ns))
            until = before + deaf_ns;
        uint64_t wait = until > before ? until - before : 0;
        timespec timeout{static_cast<time_t>(wait / 1'000'000'000), static_cast<long>(wait % 1'000'000'000)};
        ppoll(fds.data(), n, until ? &timeout : nullptr, nullptr);
        was_rung_ = std::any_of(fds.begin() + ports, fds.begin() + n, [](auto &f) { return f.revents != 0; });
        uint64_t after = board_.clock().now();
        if (was_rung_)
            times_.woken(after);
        if (tokens_at_ == 0)
            adapt(after - before);
        counters.add(CoreWakes);
    }
    sleeping_.store(false, std::memory_order_seq_cst);
    uint64_t drained;
    [[maybe_unused]] ssize_t n = read(wake_fd_, &drained, sizeof(drained));
}

// Polling pays where work comes again within the budget, and burns a core where it does not: grow fast after
// a short sleep, shrink after a long one (as KVM's halt polling does).
void Core::adapt(uint64_t slept_ns) {
    if (slept_ns > poll_max_ns_)
        poll_ns_ = poll_ns_ / 2 < budget_start_ns ? 0 : poll_ns_ / 2;
    else
        poll_ns_ = std::min(poll_max_ns_, std::max(budget_start_ns, poll_ns_ * 2));
}

uint64_t Core::cpu_ns() const {
    return cpu_ns_.load(std::memory_order_relaxed);
}

} // namespace svio
