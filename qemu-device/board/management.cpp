// SPDX-License-Identifier: GPL-2.0-or-later
#include "management.hpp"

#include <algorithm>
#include <utility>

namespace svio {

const std::array<const char *, SVIO_ST_COUNT> status_names = {SVIO_ST_NAMES};

namespace {

Answer no_such_vif() {
    return {SVIO_ST_NOT_FOUND, "there is no such VIF"};
}

Qos qos_of(const VifSettings &settings) {
    return {settings.min_mbps, settings.max_mbps, settings.weight};
}

void set_qos(VifSettings &settings, const Qos &qos) {
    settings.min_mbps = qos.min_mbps;
    settings.max_mbps = qos.max_mbps;
    settings.weight = qos.weight;
}

} // namespace

Management::Management(Board &board, const ManagementConfig &config) : board_(board), config_(config) {
    const Vif &physical = board_.vif(0);
    VifRecord record;
    record.settings = physical.settings();
    record.slot = 0;
    record.mac_assigned = true;
    record.own = qos_of(record.settings);
    next_id_ = record.settings.id + 1;
    records_.emplace(record.settings.id, std::move(record));
}

// ---- who is meant ----

const VifRecord *Management::in_slot(uint32_t slot) const {
    for (const auto &[id, record] : records_) {
        if (record.bound() && record.slot == slot)
            return &record;
    }
    return nullptr;
}

const VifRecord *Management::find(const Target &target) const {
    if (target.slot)
        return in_slot(*target.slot);
    if (target.id) {
        auto at = records_.find(*target.id);
        return at == records_.end() ? nullptr : &at->second;
    }
    if (target.name && !target.name->empty()) {
        for (const auto &[id, record] : records_) {
            if (record.settings.name == *target.name)
                return &record;
        }
    }
    return nullptr;
}

VifRecord *Management::find_mutable(const Target &target) {
    return const_cast<VifRecord *>(std::as_const(*this).find(target));
}

std::vector<const VifRecord *> Management::list() const {
    std::vector<const VifRecord *> all;
    for (const auto &[id, record] : records_)
        all.push_back(&record);
    // The map has them by ID; an unbound one's slot is larger than all others.
    std::stable_sort(all.begin(), all.end(), [](auto *one, auto *other) { return one->slot < other->slot; });
    return all;
}

Vif *Management::function_of(const VifRecord &record) const {
    return record.bound() ? &board_.vif(record.slot) : nullptr;
}

// ---- commands ----

Answer Management::create(std::optional<uint32_t> slot, const svio_vif_config &config, uint64_t &id) {
    if (config.kind != SVIO_KIND_NET)
        return {SVIO_ST_UNSUPPORTED, "the only kind of VIF is net"};
    if (slot && *slot >= board_.vifs())
        return {SVIO_ST_NOT_FOUND, "there is no such slot"};
    if (slot && in_slot(*slot))
        return {SVIO_ST_EXISTS, "the slot has a VIF"};
    auto unbound = std::count_if(records_.begin(), records_.end(), [](auto &r) { return !r.second.bound(); });
    if (!slot && static_cast<size_t>(unbound) >= unbound_max)
        return {SVIO_ST_NO_SPACE, "there are too many unbound VIFs"};
    VifRecord record = fresh(slot);
    if (Answer answer = merge(record, config); !answer.ok())
        return answer;
    id = next_id_++;
    VifRecord &kept = records_.emplace(id, std::move(record)).first->second;
    if (slot)
        put_into_slot(kept, *slot);
    return {};
}

void Management::put_into_slot(VifRecord &record, uint32_t slot) {
    record.slot = slot;
    // A copy: raising the interrupt may let the guest in.
    VifSettings settings = record.settings;
    board_.vif(slot).create(settings);
}

Answer Management::destroy(const Target &target) {
    VifRecord *record = find_mutable(target);
    if (!record)
        return no_such_vif();
    if (record->slot == 0)
        return {SVIO_ST_DENIED, "the PF's own VIF stays"};
    // First out of our books: the function's reset asks them.
    Vif *function = function_of(*record);
    records_.erase(record->settings.id);
    if (function)
        function->destroy();
    return {};
}

Answer Management::reconfigure(const Target &target, const svio_vif_config &config) {
    VifRecord *record = find_mutable(target);
    if (!record)
        return no_such_vif();
    VifRecord changed = *record;
    if (Answer answer = merge(changed, config); !answer.ok())
        return answer;
    VifSettings before = record->settings;
    *record = std::move(changed);
    apply(*record, before);
    return {};
}

void Management::apply(VifRecord &record, const VifSettings &before) {
    Vif *function = function_of(record);
    if (!function || record.settings == before)
        return;
    VifSettings settings = record.settings;
    function->apply(settings);
    if (qos_of(settings) != qos_of(before))
        function->notify(SVIO_EVENT_QOS);
}

Answer Management::bind(const Target &target, uint32_t slot) {
    VifRecord *record = find_mutable(target);
    if (!record)
        return no_such_vif();
    if (slot >= board_.vifs())
        return {SVIO_ST_NOT_FOUND, "there is no such slot"};
    if (record->bound())
        return {SVIO_ST_STATE, "the VIF is bound to a slot already"};
    if (in_slot(slot))
        return {SVIO_ST_EXISTS, "the slot has a VIF"};
    put_into_slot(*record, slot);
    return {};
}

Answer Management::unbind(const Target &target) {
    VifRecord *record = find_mutable(target);
    if (!record)
        return no_such_vif();
    if (record->slot == 0)
        return {SVIO_ST_DENIED, "the PF's own VIF stays"};
    Vif *function = function_of(*record);
    if (!function)
        return {SVIO_ST_STATE, "the VIF is not bound to a slot"};
    auto unbound = std::count_if(records_.begin(), records_.end(), [](auto &r) { return !r.second.bound(); });
    if (static_cast<size_t>(unbound) >= unbound_max)
        return {SVIO_ST_NO_SPACE, "there are too many unbound VIFs"};
    record->slot = SVIO_SLOT_SELF;
    record->automatic = false;
    set_qos(record->settings, record->own); // what a guest was granted goes with the guest
    function->destroy();
    return {};
}

Answer Management::map_core(const Target &target, uint32_t core) {
    svio_vif_config config{};
    config.mask = SVIO_CFG_CORE;
    config.core = core;
    return reconfigure(target, config);
}

// ---- what happens to the board ----

void Management::enable(uint32_t slot, bool enabled) {
    const VifRecord *record = in_slot(slot);
    if (!enabled) {
        if (record && record->automatic)
            destroy({.slot = slot, .id = {}, .name = {}});
        return;
    }
    if (record || !config_.auto_vif)
        return;
    svio_vif_config config{};
    config.kind = SVIO_KIND_NET;
    uint64_t id = 0;
    if (create(slot, config, id).ok())
        records_.at(id).automatic = true;
}

uint16_t Management::may_use_mac(const Vif &vif, const Mac &mac) const {
    const VifRecord *record = in_slot(vif.config().slot);
    if (!record)
        return SVIO_ST_NOT_FOUND;
    if (mac == record->settings.mac)
        return SVIO_ST_OK;
    if (record->mac_assigned && !record->settings.trust)
        return SVIO_ST_DENIED;
    return mac_in_use(mac, record->settings.vlan, record->settings.id) ? SVIO_ST_EXISTS : SVIO_ST_OK;
}

uint16_t Management::request_qos(Vif &vif, Qos &figures) {
    VifRecord *record = find_mutable({.slot = vif.config().slot, .id = {}, .name = {}});
    if (!record)
        return SVIO_ST_NOT_FOUND;
    const Qos asked = figures, limit = record->limit;
    if (asked.weight < 1 || asked.weight > SVIO_WEIGHT_MAX ||
        (asked.max_mbps != 0 && asked.min_mbps > asked.max_mbps))
        return SVIO_ST_INVALID;
    if (limit.weight == 0)
        return SVIO_ST_DENIED;
    figures.weight = std::min(asked.weight, limit.weight);
    if (limit.max_mbps != 0)
        figures.max_mbps = asked.max_mbps == 0 ? limit.max_mbps : std::min(asked.max_mbps, limit.max_mbps);
    figures.min_mbps = std::min(asked.min_mbps, limit.min_mbps);
    if (config_.port_mbps != 0) {
        uint64_t others = minima_of_others(record->settings.id);
        uint64_t left = config_.port_mbps > others ? config_.port_mbps - others : 0;
        figures.min_mbps = static_cast<uint32_t>(std::min<uint64_t>(figures.min_mbps, left));
    }
    if (figures.max_mbps != 0)
        figures.min_mbps = std::min(figures.min_mbps, figures.max_mbps);
    VifSettings before = record->settings;
    set_qos(record->settings, figures);
    apply(*record, before);
    return figures == asked ? SVIO_ST_OK : SVIO_ST_TRIMMED;
}

void Management::was_reset(Vif &vif) {
    VifRecord *record = find_mutable({.slot = vif.config().slot, .id = {}, .name = {}});
    if (!record || qos_of(record->settings) == record->own)
        return;
    set_qos(record->settings, record->own);
    VifSettings settings = record->settings;
    vif.apply(settings);
}

} // namespace svio
