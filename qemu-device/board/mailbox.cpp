// SPDX-License-Identifier: GPL-2.0-or-later
/// The mailbox (SPEC.md chapter 7): what a guest may ask for its own VIF. Runs in the register write, with
/// the guest lock held.
#include "supervisor.hpp"
#include "vif.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace svio {

bool Vif::run_mailbox() {
    // The signal of TEST_SIGNAL may be a write to a register: to this one again, or a reset.
    if (mailbox_state_ == SVIO_MAILBOX_BUSY)
        return false;
    mailbox_state_ = SVIO_MAILBOX_BUSY;
    uint32_t life = life_;
    svio_command command;
    static_assert(sizeof(command) == sizeof(mailbox_));
    std::memcpy(&command, mailbox_.data(), sizeof(command));
    uint32_t written = 0;
    if (command.slot == SVIO_SLOT_SELF)
        command.status = execute(command, {*this, written});
    else
        command.status = SVIO_ST_DENIED;
    command.data_len = written;
    counters.add(SVIO_STAT_COMMANDS);
    if (command.status != SVIO_ST_OK && command.status != SVIO_ST_TRIMMED)
        counters.add(SVIO_STAT_COMMANDS_REFUSED);
    if (life != life_)
        return true;
    std::memcpy(mailbox_.data(), &command, sizeof(command));
    mailbox_state_ = SVIO_MAILBOX_DONE;
    return true;
}

uint16_t Vif::execute(svio_command &command, Vif &physical, uint32_t &written) {
    return execute(command, {physical, written});
}

uint16_t Vif::execute(svio_command &command, const Caller &caller) {
    if (!present_ && command.opcode != SVIO_OP_NOP)
        return SVIO_ST_NOT_FOUND;
    switch (command.opcode) {
    case SVIO_OP_NOP:
        return SVIO_ST_OK;
    case SVIO_OP_IDENTIFY:
        return identify(command, caller);
    case SVIO_OP_SET_MAC:
        return set_mac(command);
    case SVIO_OP_MULTICAST:
        return multicast(command);
    case SVIO_OP_STATS:
        return stats(command, caller);
    case SVIO_OP_TEST_SIGNAL:
        return test_signal(command);
    case SVIO_OP_RX_MODE:
        return set_rx_mode(command);
    case SVIO_OP_VLAN_FILTER:
        return set_vlan_filter(command);
    case SVIO_OP_QOS_REQUEST:
        return request_qos(command);
    case SVIO_OP_SET_MTU: {
        uint32_t mtu = command.u.set_mtu.mtu;
        return mtu >= SVIO_MTU_MIN && mtu <= config_.mtu_max ? SVIO_ST_OK : SVIO_ST_INVALID;
    }
    case SVIO_OP_RX_OFFLOADS:
        return set_rx_offloads(command);
    case SVIO_OP_RSS:
        return set_rss(command, caller);
    case SVIO_OP_QUEUE_PAIRS:
        return set_queue_pairs(command);
    default:
        return SVIO_ST_UNSUPPORTED;
    }
}

uint16_t Vif::reply(const Caller &caller, const svio_command &command, const void *data, size_t length) {
    length = std::min<size_t>(length, command.data_len);
    if (!caller.function.dma_ || !caller.function.memory_.write(command.data_addr, data, length))
        return SVIO_ST_DMA;
    caller.written = static_cast<uint32_t>(length);
    return SVIO_ST_OK;
}

svio_vif_info Vif::info() const {
    svio_vif_info info{};
    info.id = settings_.id;
    info.slot = config_.slot;
    info.kind = settings_.kind;
    info.features = features;
    std::copy(mac_.begin(), mac_.end(), info.mac);
    info.mtu_max = config_.mtu_max;
    info.queue_pairs = pairs();
    info.queue_size_max = config_.queue_size_max;
    info.link_up = link_up();
    info.speed_mbps = host_.speed_mbps();
    info.vlan = settings_.vlan;
    info.min_mbps = settings_.min_mbps;
    info.max_mbps = settings_.max_mbps;
    info.weight = settings_.weight;
    return info;
}

uint16_t Vif::identify(svio_command &command, const Caller &caller) {
    svio_vif_info told = info();
    if (command.data_len < sizeof(told))
        return SVIO_ST_NO_SPACE;
    return reply(caller, command, &told, sizeof(told));
}

// Which of the accepted ones are used. Without a reset: a driver may be asked for it at any time.
uint16_t Vif::set_rx_offloads(const svio_command &command) {
    uint64_t wanted = command.u.rx_offloads.features;
    if (!features_ok_ || (wanted & ~(driver_features_ & SVIO_F_RX_OFFLOADS)))
        return SVIO_ST_INVALID;
    Pause pause(host_);
    use_rx_offloads(wanted);
    return SVIO_ST_OK;
}

uint16_t Vif::set_mac(const svio_command &command) {
    Mac mac;
    std::copy_n(command.u.set_mac.mac, mac.size(), mac.begin());
    if ((mac[0] & 1) || mac == Mac{})
        return SVIO_ST_INVALID;
    if (Supervisor *supervisor = host_.supervisor()) {
        if (uint16_t status = supervisor->may_use_mac(*this, mac))
            return status;
    }
    Pause pause(host_);
    mac_ = mac;
    host_.filters_changed();
    return SVIO_ST_OK;
}

uint16_t Vif::set_rx_mode(const svio_command &command) {
    uint32_t mode = command.u.rx_mode.flags;
    if (mode & ~uint32_t{SVIO_RX_KNOWN})
        return SVIO_ST_INVALID;
    if (((mode & SVIO_RX_PROMISC) && !settings_.allow_promisc) ||
        ((mode & SVIO_RX_ALL_MULTICAST) && !settings_.allow_multicast))
        return SVIO_ST_DENIED;
    Pause pause(host_);
    rx_mode_ = mode;
    host_.filters_changed();
    return SVIO_ST_OK;
}

uint16_t Vif::set_vlan_filter(const svio_command &command) {
    const auto &request = command.u.vlan_filter;
    if (request.vid < 1 || request.vid > 4094 || request.add > 1)
        return SVIO_ST_INVALID;
    if (settings_.vlan != 0 || !settings_.guest_tagging)
        return SVIO_ST_DENIED;
    Pause pause(host_);
    vlans_.set(request.vid, request.add);
    host_.filters_changed();
    return SVIO_ST_OK;
}

uint16_t Vif::request_qos(svio_command &command) {
    Supervisor *supervisor = host_.supervisor();
    if (!supervisor)
        return SVIO_ST_UNSUPPORTED;
    auto &request = command.u.qos;
    Qos figures{request.min_mbps, request.max_mbps, request.weight};
    uint16_t status = supervisor->request_qos(*this, figures);
    if (status == SVIO_ST_OK || status == SVIO_ST_TRIMMED) {
        request.min_mbps = figures.min_mbps;
        request.max_mbps = figures.max_mbps;
        request.weight = figures.weight;
    }
    return status;
}

uint16_t Vif::multicast(const svio_command &command) {
    const auto &request = command.u.multicast;
    size_t count = request.count;
    if (count > std::size(request.mac) || request.op > SVIO_MC_REMOVE)
        return SVIO_ST_INVALID;
    auto end = [this] { return groups_.begin() + static_cast<ptrdiff_t>(group_count_); };
    std::vector<Mac> wanted(count);
    for (size_t i = 0; i < count; i++) {
        std::copy_n(request.mac[i], wanted[i].size(), wanted[i].begin());
        if (!(wanted[i][0] & 1))
            return SVIO_ST_INVALID;
    }
    if (request.op != SVIO_MC_REMOVE && count != 0 && !settings_.allow_multicast)
        return SVIO_ST_DENIED;
    Pause pause(host_);
    host_.filters_changed();
    if (request.op == SVIO_MC_CLEAR)
        group_count_ = 0;
    if (request.op == SVIO_MC_REMOVE) {
        for (const Mac &mac : wanted)
            group_count_ = static_cast<size_t>(std::remove(groups_.begin(), end(), mac) - groups_.begin());
        return SVIO_ST_OK;
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    std::erase_if(wanted, [&](const Mac &mac) { return std::find(groups_.begin(), end(), mac) != end(); });
    if (group_count_ + wanted.size() > groups_.size())
        return SVIO_ST_NO_SPACE;
    std::copy(wanted.begin(), wanted.end(), end());
    group_count_ += wanted.size();
    return SVIO_ST_OK;
}

uint16_t Vif::test_signal(const svio_command &command) {
    uint32_t vector = command.u.test_signal.vector;
    if (vector >= SVIO_VECTORS)
        return SVIO_ST_INVALID;
    if (!dma_)
        return SVIO_ST_STATE;
    signals_.raise(vector);
    return SVIO_ST_OK;
}

uint16_t Vif::stats(svio_command &command, const Caller &caller) {
    std::vector<uint64_t> values;
    uint32_t pair = command.u.stats.pair;
    if (pair == SVIO_STATS_VIF) {
        for (size_t i = 0; i < SVIO_STAT_COUNT; i++)
            values.push_back(counters.get(i));
    } else if (pair < pairs()) {
        for (const QueueCounters *queue : {&pairs_[pair].send.counters, &pairs_[pair].receive.counters}) {
            for (size_t i = 0; i < SVIO_QSTAT_COUNT; i++)
                values.push_back(queue->get(i));
        }
    } else {
        return SVIO_ST_NOT_FOUND;
    }
    if (command.data_len < sizeof(uint64_t))
        return SVIO_ST_NO_SPACE;
    command.data_len &= ~uint32_t{7};
    return reply(caller, command, values.data(), values.size() * sizeof(uint64_t));
}

uint16_t Vif::set_queue_pairs(const svio_command &command) {
    uint32_t count = command.u.queue_pairs.count;
    if (count < 1 || count > pairs())
        return SVIO_ST_INVALID;
    {
        Pause pause(host_);
        rss_.use_pairs(count);
    }
    // A frame that was held back may have another pair now.
    host_.receive_ready(*this);
    return SVIO_ST_OK;
}

uint16_t Vif::set_rss(const svio_command &command, const Caller &caller) {
    uint32_t types = command.u.rss.hash_types;
    size_t key_length = command.u.rss.key_len, entries = command.u.rss.table_len;
    if ((types & ~uint32_t{SVIO_RSS_TYPES}) || (key_length != 0 && key_length != SVIO_RSS_KEY_LEN) ||
        entries > SVIO_RSS_TABLE_MAX || (entries & (entries - 1)))
        return SVIO_ST_INVALID;
    size_t length = key_length + entries;
    if (command.data_len < length)
        return SVIO_ST_NO_SPACE;
    std::array<uint8_t, SVIO_RSS_KEY_LEN + SVIO_RSS_TABLE_MAX> data;
    if (length != 0 &&
        (!caller.function.dma_ || !caller.function.memory_.read(command.data_addr, data.data(), length)))
        return SVIO_ST_DMA;
    std::span<const uint8_t> table = std::span(data).subspan(key_length, entries);
    if (std::any_of(table.begin(), table.end(), [this](uint8_t pair) { return pair >= rss_.pairs(); }))
        return SVIO_ST_INVALID;
    {
        Pause pause(host_);
        rss_.set_types(types);
        if (key_length != 0) {
            RssKey key;
            std::copy_n(data.begin(), key.size(), key.begin());
            rss_.set_key(key);
        }
        if (entries != 0)
            rss_.set_table(table);
    }
    host_.receive_ready(*this);
    return SVIO_ST_OK;
}

} // namespace svio
