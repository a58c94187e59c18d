// SPDX-License-Identifier: GPL-2.0-or-later
#include "board.hpp"

#include "supervisor.hpp"

#include <algorithm>
#include <stdexcept>

namespace svio {

Board::Board(const BoardConfig &config, GuestLock &lock, Clock &clock, ThreadHooks &hooks,
             std::unique_ptr<Port> port)
    : lock_(lock), clock_(clock), hooks_(hooks), config_(config), port_(std::move(port)) {
    if (config_.shared_signals)
        shared_signals_ = std::make_unique<SharedSignals>(*this);
    for (unsigned n = 0; n < config_.cores; n++)
        cores_.push_back(std::make_unique<Core>(*this, n, config_.poll_us, config_.stage_times));
    // The last core polls a native port, so that with two of them each direction has its own.
    if (port_->native())
        cores_.back()->serve_port();
    port_rate_.set_rate(config_.port_mbps);
    timed_ = config_.port_mbps != 0;
}

Board::~Board() {
    stop();
}

Vif &Board::add_function(const FunctionConfig &config, GuestMemory &memory, Signals &signals) {
    if (config.slot != vifs_.size())
        throw std::invalid_argument("functions come slot after slot");
    Signals &used = shared_signals_ ? shared_signals_->add(signals) : signals;
    vifs_.push_back(std::make_unique<Vif>(config, memory, used, clock_, *this));
    return *vifs_.back();
}

Vif &Board::add_vif(const FunctionConfig &config, GuestMemory &memory, Signals &signals) {
    Vif &vif = add_function(config, memory, signals);
    VifSettings settings = config.physical ? VifSettings::of_physical() : VifSettings{};
    settings.id = config.id;
    settings.mac = config.mac;
    settings.queue_pairs = config.queue_pairs;
    vif.create(settings);
    vif.write_register(SVIO_REG_EVENT, SVIO_EVENT_ALL); // nobody was there whom it is news to
    return vif;
}

void Board::set_link(bool up) {
    for (auto &vif : vifs_)
        vif->set_link(up);
}

void Board::start() {
    if (config_.threads && !started_) {
        for (auto &core : cores_)
            core->start();
    }
    started_ = true;
}

void Board::stop() {
    for (auto &core : cores_)
        core->stop();
    started_ = false;
}

void Board::pause() {
    pauses_.fetch_add(1, std::memory_order_seq_cst);
    for (auto &core : cores_)
        core->wait_inactive();
}

void Board::resume() {
    if (pauses_.load(std::memory_order_relaxed) == 1)
        refresh_table();
    if (pauses_.fetch_sub(1, std::memory_order_seq_cst) == 1) {
        unpark();
        for (auto &core : cores_)
            core->wake();
        if (supervisor_)
            supervisor_->resumed();
    }
}

void Board::unpark() {
    park_word_.fetch_add(1, std::memory_order_seq_cst);
    park_word_.notify_all();
}

void Board::wake(Vif &vif, unsigned pair) {
    core_of(vif, pair).wake();
}

void Board::port_ready() {
    for (auto &core : cores_)
        core->wake();
}

void Board::receive_ready(Vif &) {
    // A frame may wait with another core than its pair's, if the table was changed since.
    for (auto &core : cores_) {
        if (core->has_backlog())
            core->wake();
    }
    if (port_->native())
        cores_.back()->wake();
    else
        port_->flush_receive();
}

size_t Board::purge(Vif &vif) {
    port_->purge(std::any_of(vifs_.begin(), vifs_.end(),
                             [&](auto &other) { return other.get() != &vif && other->present(); }));
    size_t gone = 0;
    for (auto &core : cores_)
        gone += core->purge(vif);
    return gone;
}

bool Board::has_error_news() const {
    return std::any_of(vifs_.begin(), vifs_.end(), [](auto &vif) { return vif->has_error_news(); });
}

void Board::report_errors() {
    for (auto &vif : vifs_)
        vif->report_errors();
}

namespace {

// Of the buckets those that have something, each by its least value.
void visit_stage_times(const std::string &path, const StageTimes &times, const Board::Visitor &visit) {
    for (size_t stage = 0; times.on() && stage < StageCount; stage++) {
        const Histogram &histogram = times.of(static_cast<Stage>(stage));
        for (size_t bucket = 0; bucket < Histogram::buckets; bucket++) {
            if (uint64_t count = histogram.get(bucket))
                visit(path + stage_names[stage] + "/" + std::to_string(Histogram::least(bucket)), count);
        }
    }
}

} // namespace

void Board::visit_port_counters(const Port::Visitor &visit) const {
    visit("unclaimed", unclaimed_.load(std::memory_order_relaxed));
    port_->visit_counters(visit);
}

void Board::visit_counters(const Visitor &visit) const {
    for (size_t n = 0; n < cores_.size(); n++) {
        std::string core = "cores/" + std::to_string(n) + "/";
        for (size_t i = 0; i < CoreStatCount; i++)
            visit(core + core_stat_names[i], cores_[n]->counters.get(i));
        visit(core + "cpu_ns", cores_[n]->cpu_ns());
        visit_stage_times(core + "stage_times/", cores_[n]->times(), visit);
    }
    visit_port_counters(
        [&visit](const char *name, uint64_t value) { visit(std::string("port/") + name, value); });
    for (size_t n = 0; n < vifs_.size(); n++) {
        Vif &vif = *vifs_[n];
        if (!vif.present())
            continue;
        std::string path = "vifs/" + std::to_string(n) + "/";
        visit(path + "id", vif.settings().id);
        for (size_t i = 0; i < SVIO_STAT_COUNT; i++)
            visit(path + vif_stat_names[i], vif.counters.get(i));
        for (unsigned pair = 0; pair < vif.pairs(); pair++) {
            std::string queues = path + "queues/" + std::to_string(pair) + "/";
            for (size_t i = 0; i < SVIO_QSTAT_COUNT; i++) {
                visit(queues + "send/" + queue_stat_names[i], vif.pair(pair).send.counters.get(i));
                visit(queues + "receive/" + queue_stat_names[i], vif.pair(pair).receive.counters.get(i));
            }
        }
    }
}

} // namespace svio
