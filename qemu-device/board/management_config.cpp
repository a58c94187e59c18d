// SPDX-License-Identifier: GPL-2.0-or-later
/// What a VIF is made of (SPEC.md 8.1): defaults, checks, and the structures that doors show.
#include "management.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace svio {

namespace {

Answer invalid(std::string why) {
    return {SVIO_ST_INVALID, std::move(why)};
}

uint16_t vid(uint16_t vlan) {
    return vlan & SVIO_VLAN_VID;
}

} // namespace

// As RFC 3629 has it: no surrogate, nothing longer than need be.
bool printable_utf8(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
        auto lead = static_cast<uint8_t>(text[i++]);
        size_t more = lead < 0x80 ? 0 : lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0x20 || lead == 0x7f || (lead >= 0x80 && lead < 0xc2) || lead > 0xf4 ||
            text.size() - i < more)
            return false;
        uint32_t code = more == 0 ? lead : lead & (0x3fu >> more);
        for (; more > 0; more--, i++) {
            auto next = static_cast<uint8_t>(text[i]);
            if ((next & 0xc0) != 0x80)
                return false;
            code = code << 6 | (next & 0x3f);
        }
        bool overlong = (lead == 0xe0 && code < 0x800) || (lead == 0xf0 && code < 0x10000);
        if (overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff || (code >= 0x80 && code < 0xa0))
            return false;
    }
    return true;
}

// ---- defaults ----

Mac Management::derived_mac(uint64_t number) const {
    Mac mac = board_.vif(0).settings().mac;
    mac[0] = static_cast<uint8_t>((mac[0] & 0xfc) | 0x02);
    mac[1] = static_cast<uint8_t>(mac[1] + number);
    for (unsigned tries = 0; tries < 256 && mac_in_use(mac, 0, 0); tries++)
        mac[2]++;
    return mac;
}

VifRecord Management::fresh(std::optional<uint32_t> slot) const {
    uint32_t like = slot.value_or(1);
    const FunctionConfig &function = board_.vif(like < board_.vifs() ? like : 0).config();
    VifRecord record;
    record.settings.id = next_id_;
    record.settings.mac = derived_mac(slot ? uint64_t{*slot} : next_id_);
    record.settings.queue_pairs = function.queue_pairs;
    record.settings.queue_size = function.queue_size_hint;
    return record;
}

// ---- what others have ----

bool Management::mac_in_use(const Mac &mac, uint16_t vlan, uint64_t except) const {
    return std::any_of(records_.begin(), records_.end(), [&](const auto &entry) {
        const VifRecord &other = entry.second;
        if (entry.first == except || vid(other.settings.vlan) != vid(vlan))
            return false;
        const Vif *function = function_of(other);
        return other.settings.mac == mac || (function && function->mac() == mac);
    });
}

uint64_t Management::minima_of_others(uint64_t except) const {
    uint64_t sum = 0;
    for (const auto &[id, record] : records_) {
        if (id != except)
            // A guest may have asked for less than it has by management, and gets that back with a reset.
            sum += std::max(record.settings.min_mbps, record.own.min_mbps);
    }
    return sum;
}

// ---- checks ----

// Into a copy: of what is refused nothing stays.
Answer Management::merge(VifRecord &record, const svio_vif_config &config) const {
    VifSettings &settings = record.settings;
    if (config.mask & ~uint32_t{SVIO_CFG_KNOWN})
        return invalid("an unknown bit in the mask");
    const uint16_t vlan_before = settings.vlan;
    if (config.mask & SVIO_CFG_MAC) {
        std::copy_n(config.mac, settings.mac.size(), settings.mac.begin());
        if ((settings.mac[0] & 1) || settings.mac == Mac{})
            return invalid("the MAC is not a unicast address");
        record.mac_assigned = true;
    }
    if (config.mask & SVIO_CFG_VLAN)
        settings.vlan = config.vlan;
    if (Answer answer = merge_flags(settings, config); !answer.ok())
        return answer;
    if (vid(settings.vlan) > 4094 || (settings.vlan & 0x1000) || (settings.vlan && vid(settings.vlan) == 0))
        return invalid("a VLAN is 1 to 4094 with a priority of 0 to 7, or 0");
    bool asked_tagging = config.mask & SVIO_CFG_GUEST_TAGGING;
    if (settings.vlan && asked_tagging && settings.guest_tagging)
        return invalid("a guest whose VIF is in a VLAN cannot tag");
    // Without a word about it, tagging follows from the VLAN.
    if (!asked_tagging && (config.mask & SVIO_CFG_VLAN) && (settings.vlan != 0) != (vlan_before != 0))
        settings.guest_tagging = settings.vlan == 0;
    bool moved = vid(settings.vlan) != vid(vlan_before);
    const Vif *function = function_of(record);
    if ((config.mask & SVIO_CFG_MAC) || moved) {
        // The guest's own choice goes along into another VLAN.
        bool taken = mac_in_use(settings.mac, settings.vlan, settings.id) ||
                     (moved && function && mac_in_use(function->mac(), settings.vlan, settings.id));
        if (taken)
            return {SVIO_ST_EXISTS, "another VIF of the same VLAN has this MAC"};
    }
    if (Answer answer = merge_queues(record, settings, config); !answer.ok())
        return answer;
    if (Answer answer = merge_qos(record, config); !answer.ok())
        return answer;
    if (config.mask & SVIO_CFG_CORE) {
        if (config.core != SVIO_CORE_AUTO && config.core >= board_.cores())
            return {SVIO_ST_NOT_FOUND, "there is no such core"};
        settings.core = config.core;
    }
    if (config.mask & SVIO_CFG_NEIGHBOURS)
        settings.neighbours = config.neighbours;
    return merge_name(record, settings, config);
}

Answer Management::merge_flags(VifSettings &settings, const svio_vif_config &config) const {
    struct Flag {
        uint32_t bit;
        uint8_t value;
        bool VifSettings::*to;
    };
    const Flag flags[] = {{SVIO_CFG_TRUST, config.trust, &VifSettings::trust},
                          {SVIO_CFG_SPOOF_CHECK, config.spoof_check, &VifSettings::spoof_check},
                          {SVIO_CFG_PROMISC, config.allow_promisc, &VifSettings::allow_promisc},
                          {SVIO_CFG_MULTICAST, config.allow_multicast, &VifSettings::allow_multicast},
                          {SVIO_CFG_GUEST_TAGGING, config.guest_tagging, &VifSettings::guest_tagging}};
    for (const Flag &flag : flags) {
        if (!(config.mask & flag.bit))
            continue;
        if (flag.value > 1)
            return invalid("a flag is 0 or 1");
        settings.*flag.to = flag.value;
    }
    if (config.mask & SVIO_CFG_LINK) {
        if (config.link > SVIO_LINK_DOWN)
            return invalid("the link is auto, up or down");
        settings.link = config.link;
    }
    return {};
}

Answer Management::merge_queues(const VifRecord &record, VifSettings &settings,
                                const svio_vif_config &config) const {
    if (!(config.mask & SVIO_CFG_QUEUES))
        return {};
    const Vif *bound = function_of(record);
    const FunctionConfig &function = bound ? bound->config() : board_.vif(std::min(1u, slots())).config();
    if (config.queue_pairs < 1 || config.queue_pairs > function.queue_pairs)
        return invalid("queue pairs are 1 to " + std::to_string(function.queue_pairs));
    if (!std::has_single_bit(config.queue_size) || config.queue_size < SVIO_QUEUE_MIN ||
        config.queue_size > function.queue_size_max)
        return invalid("the size of a queue is a power of two from " + std::to_string(SVIO_QUEUE_MIN) +
                       " to " + std::to_string(function.queue_size_max));
    settings.queue_pairs = config.queue_pairs;
    settings.queue_size = config.queue_size;
    return {};
}

Answer Management::merge_qos(VifRecord &record, const svio_vif_config &config) const {
    VifSettings &settings = record.settings;
    if (config.mask & SVIO_CFG_QOS_LIMIT) {
        if (config.limit_weight > SVIO_WEIGHT_MAX)
            return invalid("a weight is 1 to " + std::to_string(SVIO_WEIGHT_MAX));
        record.limit = {config.limit_min_mbps, config.limit_max_mbps, config.limit_weight};
    }
    if (!(config.mask & (SVIO_CFG_RATE | SVIO_CFG_WEIGHT)))
        return {};
    Qos qos = record.own; // a guest's grant ends with this
    if (config.mask & SVIO_CFG_RATE) {
        qos.min_mbps = config.min_mbps;
        qos.max_mbps = config.max_mbps;
    }
    if (config.mask & SVIO_CFG_WEIGHT)
        qos.weight = config.weight;
    if (qos.weight < 1 || qos.weight > SVIO_WEIGHT_MAX)
        return invalid("a weight is 1 to " + std::to_string(SVIO_WEIGHT_MAX));
    if (qos.max_mbps != 0 && qos.min_mbps > qos.max_mbps)
        return invalid("the guaranteed rate is above the largest");
    if (config_.port_mbps != 0 && qos.min_mbps != 0 &&
        minima_of_others(settings.id) + qos.min_mbps > config_.port_mbps)
        return {SVIO_ST_NO_SPACE, "all guaranteed rates together are more than the port's " +
                                      std::to_string(config_.port_mbps) + " Mb/s"};
    record.own = qos;
    settings.min_mbps = qos.min_mbps;
    settings.max_mbps = qos.max_mbps;
    settings.weight = qos.weight;
    return {};
}

Answer Management::merge_name(const VifRecord &record, VifSettings &settings,
                              const svio_vif_config &config) const {
    if (!(config.mask & SVIO_CFG_NAME))
        return {};
    const auto *text = reinterpret_cast<const char *>(config.name);
    size_t length = strnlen(text, sizeof(config.name));
    if (length == sizeof(config.name))
        return invalid("a name has at most " + std::to_string(sizeof(config.name) - 1) + " bytes");
    std::string name(text, length);
    if (!printable_utf8(name))
        return invalid("a name is UTF-8 without control characters");
    const VifRecord *other = name.empty() ? nullptr : find({.slot = {}, .id = {}, .name = name});
    if (other && other->settings.id != record.settings.id)
        return {SVIO_ST_EXISTS, "another VIF has this name"};
    settings.name = name;
    return {};
}

// ---- what doors show ----

svio_vif_config Management::config_of(const VifRecord &record) const {
    const VifSettings &settings = record.settings;
    svio_vif_config config{};
    config.id = settings.id;
    config.mask = SVIO_CFG_KNOWN;
    config.kind = settings.kind;
    std::copy(settings.mac.begin(), settings.mac.end(), config.mac);
    config.vlan = settings.vlan;
    config.trust = settings.trust;
    config.spoof_check = settings.spoof_check;
    config.allow_promisc = settings.allow_promisc;
    config.allow_multicast = settings.allow_multicast;
    config.link = settings.link;
    config.guest_tagging = settings.guest_tagging;
    config.queue_pairs = static_cast<uint16_t>(settings.queue_pairs);
    config.queue_size = settings.queue_size;
    config.min_mbps = settings.min_mbps;
    config.max_mbps = settings.max_mbps;
    config.weight = settings.weight;
    config.core = settings.core;
    std::copy_n(settings.name.begin(), std::min(settings.name.size(), sizeof(config.name) - 1), config.name);
    config.slot = record.slot;
    config.limit_min_mbps = record.limit.min_mbps;
    config.limit_max_mbps = record.limit.max_mbps;
    config.limit_weight = record.limit.weight;
    config.neighbours = settings.neighbours;
    return config;
}

svio_vif_info Management::info_of(const VifRecord &record) const {
    const VifSettings &settings = record.settings;
    svio_vif_info info{};
    if (const Vif *function = function_of(record)) {
        info = function->info();
    } else {
        const FunctionConfig &any = board_.vif(std::min(1u, slots())).config();
        std::copy(settings.mac.begin(), settings.mac.end(), info.mac);
        info.mtu_max = any.mtu_max;
        info.queue_pairs = settings.queue_pairs;
        info.queue_size_max = any.queue_size_max;
        info.features = Vif::features;
    }
    info.id = settings.id;
    info.slot = record.slot;
    info.kind = settings.kind;
    info.vlan = settings.vlan;
    info.min_mbps = settings.min_mbps;
    info.max_mbps = settings.max_mbps;
    info.weight = settings.weight;
    return info;
}

svio_core_info Management::core_info(unsigned core) const {
    const Core &from = board_.core(core);
    svio_core_info info{};
    info.core = core;
    for (unsigned slot = 0; slot < board_.vifs(); slot++) {
        Vif &vif = board_.vif(slot);
        for (unsigned pair = 0; pair < vif.pairs(); pair++)
            info.queues += vif.pair(pair).core == core;
    }
    info.polls = from.counters.get(CorePolls);
    info.empty_polls = from.counters.get(CoreEmptyPolls);
    info.sleeps = from.counters.get(CoreSleeps);
    info.busy_ns = from.cpu_ns();
    return info;
}

} // namespace svio
