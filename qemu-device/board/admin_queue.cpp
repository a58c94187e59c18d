// SPDX-License-Identifier: GPL-2.0-or-later
#include "admin_queue.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace svio {

namespace {

constexpr uint16_t flags_known = SVIO_COMMAND_POSTED | SVIO_COMMAND_DONE;
/// Of a list of options, more than there will be for long.
constexpr size_t options_max = 1024;

template <typename T> void append(std::vector<uint8_t> &to, const T &record) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(&record);
    to.insert(to.end(), bytes, bytes + sizeof(record));
}

template <typename T> void append_option(std::vector<uint8_t> &to, uint16_t id, const T &parameters) {
    append(to, svio_option{.id = id, .length = sizeof(T), .required = 0});
    append(to, parameters);
}

} // namespace

AdminQueue::AdminQueue(Management &management, uint32_t size_max)
    : management_(management), physical_(management.board().vif(0)), size_max_(size_max) {}

// ---- registers ----

bool AdminQueue::read(uint32_t offset, uint32_t &value) const {
    if (offset == SVIO_REG_ADMIN_SIZE_MAX) {
        value = size_max_;
        return true;
    }
    if (size_max_ == 0)
        return false;
    switch (offset) {
    case SVIO_REG_ADMIN_BASE_LO:
        value = static_cast<uint32_t>(base_);
        return true;
    case SVIO_REG_ADMIN_BASE_HI:
        value = static_cast<uint32_t>(base_ >> 32);
        return true;
    case SVIO_REG_ADMIN_SIZE:
        value = size_;
        return true;
    case SVIO_REG_ADMIN_VECTOR:
        value = vector_;
        return true;
    case SVIO_REG_ADMIN_CONTROL:
        value = state_ == SVIO_QUEUE_DISABLED ? 0 : SVIO_QUEUE_ENABLE;
        return true;
    case SVIO_REG_ADMIN_STATE:
        value = state_;
        return true;
    default:
        return false;
    }
}

bool AdminQueue::write(uint32_t offset, uint32_t value) {
    if (size_max_ == 0)
        return false;
    switch (offset) {
    case SVIO_REG_ADMIN_BELL:
        look();
        return true;
    case SVIO_REG_ADMIN_CONTROL:
        enable(value & SVIO_QUEUE_ENABLE);
        return true;
    case SVIO_REG_ADMIN_VECTOR:
        if (value >= SVIO_VECTORS && value != SVIO_NO_VECTOR)
            return false;
        vector_ = value;
        return true;
    default:
        break;
    }
    if (state_ != SVIO_QUEUE_DISABLED)
        return false;
    switch (offset) {
    case SVIO_REG_ADMIN_BASE_LO:
        base_ = (base_ & ~uint64_t{0xffffffff}) | value;
        return true;
    case SVIO_REG_ADMIN_BASE_HI:
        base_ = (base_ & 0xffffffff) | uint64_t{value} << 32;
        return true;
    case SVIO_REG_ADMIN_SIZE:
        size_ = value;
        return true;
    default:
        return false;
    }
}

void AdminQueue::enable(bool on) {
    if (!on) {
        stop();
        return;
    }
    if (state_ != SVIO_QUEUE_DISABLED)
        return;
    life_++;
    position_ = 0;
    if (!std::has_single_bit(size_) || size_ < SVIO_ADMIN_QUEUE_MIN || size_ > size_max_ ||
        base_ % SVIO_QUEUE_ALIGN != 0) {
        fail(SVIO_QERR_CONFIG);
        return;
    }
    ring_ = physical_.memory().open(base_, size_t{size_} * sizeof(svio_command));
    if (!ring_) {
        fail(SVIO_QERR_DMA);
        return;
    }
    state_ = SVIO_QUEUE_RUNNING;
    look();
}

void AdminQueue::stop() {
    life_++;
    ring_.reset();
    state_ = SVIO_QUEUE_DISABLED;
    position_ = 0;
    pending_ = false;
}

void AdminQueue::reset() {
    stop();
    base_ = 0;
    size_ = 0;
    vector_ = SVIO_NO_VECTOR;
    accepted_ = 0;
}

void AdminQueue::fail(uint32_t code) {
    state_ = SVIO_QUEUE_ERROR | code << 8;
    pending_ = false;
    physical_.counters.add(SVIO_STAT_QUEUE_ERRORS);
    physical_.notify(SVIO_EVENT_QUEUE_ERROR);
}

// ---- the ring ----

// Opcode and flags, in one load: the flags say whether the opcode is there.
bool AdminQueue::load_word(uint32_t &word) {
    size_t offset = offset_of(position_);
    if (!ring_->direct()) {
        if (!ring_->load(offset, &word, sizeof(word)))
            return false;
        std::atomic_thread_fence(std::memory_order_acquire); // as below
        return true;
    }
    // Acquire: the rest of the command was written before its flags.
    word = __atomic_load_n(reinterpret_cast<const uint32_t *>(ring_->direct() + offset), __ATOMIC_ACQUIRE);
    return true;
}

// All but the first word, each word of it once.
bool AdminQueue::load_command(svio_command &command) {
    size_t offset = offset_of(position_);
    auto *to = reinterpret_cast<uint8_t *>(&command);
    if (!ring_->direct())
        return ring_->load(offset + 4, to + 4, sizeof(command) - 4);
    for (size_t i = 4; i < sizeof(command); i += 4) {
        uint32_t word = __atomic_load_n(reinterpret_cast<const uint32_t *>(ring_->direct() + offset + i),
                                        __ATOMIC_RELAXED);
        std::memcpy(to + i, &word, sizeof(word));
    }
    return true;
}

bool AdminQueue::store_command(const svio_command &command) {
    size_t offset = offset_of(position_);
    const auto *from = reinterpret_cast<const uint8_t *>(&command);
    if (!ring_->direct()) {
        if (!ring_->store(offset + 4, from + 4, sizeof(command) - 4))
            return false;
        std::atomic_thread_fence(std::memory_order_release); // as below
        return ring_->store(offset, from, 4);
    }
    // Release at the last: a driver that sees DONE sees the answer and its data.
    for (size_t i = sizeof(command); i > 0; i -= 4) {
        uint32_t word;
        std::memcpy(&word, from + i - 4, sizeof(word));
        __atomic_store_n(reinterpret_cast<uint32_t *>(ring_->direct() + offset + i - 4), word,
                         __ATOMIC_RELEASE);
    }
    ring_->written(offset, sizeof(command));
    return true;
}

bool AdminQueue::step() {
    // Without bus mastering nothing is lost: it is looked for again when the board goes on.
    if (!pending_ || !physical_.dma())
        return false;
    uint32_t word = 0;
    if (!load_word(word)) {
        fail(SVIO_QERR_DMA);
        return true;
    }
    auto flags = static_cast<uint16_t>(word >> 16);
    const bool lap = svio_lap(position_, size_) != 0;
    if (((flags & SVIO_COMMAND_POSTED) != 0) != lap) {
        // The bell, which follows a command, needs the guest lock too: none can be missed.
        pending_ = false;
        return false;
    }
    svio_command command;
    if (flags & ~flags_known) {
        fail(SVIO_QERR_FLAGS);
    } else if (!load_command(command)) {
        fail(SVIO_QERR_DMA);
    } else {
        command.opcode = static_cast<uint16_t>(word);
        if (!complete(command, lap ? flags_known : 0))
            fail(SVIO_QERR_DMA);
    }
    return true;
}

// False: the ring cannot be reached any more.
bool AdminQueue::complete(svio_command &command, uint16_t flags) {
    const uint32_t life = life_;
    written_ = 0;
    command.status = execute(command);
    command.data_len = written_;
    command.flags = flags;
    physical_.counters.add(SVIO_STAT_COMMANDS);
    if (command.status != SVIO_ST_OK && command.status != SVIO_ST_TRIMMED)
        physical_.counters.add(SVIO_STAT_COMMANDS_REFUSED);
    // An interrupt that it raised may be a write to a register of the PF, which has stopped this queue.
    if (life != life_)
        return true;
    if (!store_command(command))
        return false;
    position_++;
    if (vector_ != SVIO_NO_VECTOR)
        physical_.signals().raise(vector_);
    return true;
}

// ---- commands ----

uint32_t AdminQueue::offered() const {
    uint32_t bits = 1u << SVIO_OPTION_MANAGEMENT | 1u << SVIO_OPTION_QOS | 1u << SVIO_OPTION_CORE_MAP;
    return management_.config().shared_signals ? bits | 1u << SVIO_OPTION_SHARED_SIGNALS : bits;
}

Target AdminQueue::target_of(const svio_command &command) const {
    if (command.slot != SVIO_SLOT_SELF)
        return {.slot = command.slot, .id = {}, .name = {}};
    if (command.u.vif.id != 0)
        return {.slot = {}, .id = command.u.vif.id, .name = {}};
    return {.slot = 0, .id = {}, .name = {}};
}

uint16_t AdminQueue::execute(svio_command &command) {
    switch (command.opcode) {
    case SVIO_OP_DESCRIBE_OPTIONS:
        return describe_options(command);
    case SVIO_OP_ACCEPT_OPTIONS:
        return accept_options(command);
    case SVIO_OP_VIF_CREATE:
    case SVIO_OP_VIF_DESTROY:
    case SVIO_OP_VIF_RECONFIGURE:
    case SVIO_OP_VIF_QUERY:
    case SVIO_OP_VIF_LIST:
    case SVIO_OP_VIF_BIND:
    case SVIO_OP_VIF_UNBIND:
        if (!accepted(SVIO_OPTION_MANAGEMENT))
            return SVIO_ST_UNSUPPORTED;
        break;
    case SVIO_OP_CORE_LIST:
    case SVIO_OP_CORE_MAP:
        if (!accepted(SVIO_OPTION_CORE_MAP))
            return SVIO_ST_UNSUPPORTED;
        break;
    default:
        return run_for_vif(command);
    }
    switch (command.opcode) {
    case SVIO_OP_VIF_CREATE:
        return create(command);
    case SVIO_OP_VIF_DESTROY:
        return management_.destroy(target_of(command)).status;
    case SVIO_OP_VIF_RECONFIGURE:
        return reconfigure(command);
    case SVIO_OP_VIF_QUERY:
        return query(command);
    case SVIO_OP_VIF_LIST:
        return list_vifs(command);
    case SVIO_OP_VIF_BIND:
        return management_.bind({.slot = {}, .id = command.u.vif.id, .name = {}}, command.slot).status;
    case SVIO_OP_VIF_UNBIND:
        return management_.unbind(target_of(command)).status;
    case SVIO_OP_CORE_LIST:
        return list_cores(command);
    default: { // SVIO_OP_CORE_MAP, whose payload leaves no room for an ID
        uint32_t slot = command.slot == SVIO_SLOT_SELF ? 0 : command.slot;
        return management_.map_core({.slot = slot, .id = {}, .name = {}}, command.u.core_map.core).status;
    }
    }
}

// A command of chapter 7, as if the guest of that slot had given it, but with data in the PF's memory.
uint16_t AdminQueue::run_for_vif(svio_command &command) {
    const uint32_t slot = command.slot == SVIO_SLOT_SELF ? 0 : command.slot;
    if (slot >= management_.board().vifs())
        return SVIO_ST_NOT_FOUND;
    return management_.board().vif(slot).execute(command, physical_, written_);
}

uint16_t AdminQueue::reply(const svio_command &command, const void *data, size_t length) {
    if (!physical_.dma() || !physical_.memory().write(command.data_addr, data, length))
        return SVIO_ST_DMA;
    written_ = static_cast<uint32_t>(length);
    return SVIO_ST_OK;
}

uint16_t AdminQueue::describe_options(svio_command &command) {
    std::vector<uint8_t> list;
    append_option(list, SVIO_OPTION_MANAGEMENT,
                  svio_option_management{.slots = management_.slots(), .fields = SVIO_CFG_KNOWN});
    append_option(
        list, SVIO_OPTION_QOS,
        svio_option_qos{.port_mbps = management_.config().port_mbps, .weight_max = SVIO_WEIGHT_MAX});
    if (offered() & 1u << SVIO_OPTION_SHARED_SIGNALS)
        append(list, svio_option{.id = SVIO_OPTION_SHARED_SIGNALS, .length = 0, .required = 0});
    append_option(list, SVIO_OPTION_CORE_MAP,
                  svio_option_core_map{.cores = management_.board().cores(), .reserved = 0});
    append(list, svio_option{.id = SVIO_OPTION_END, .length = 0, .required = 0});
    if (command.data_len < list.size())
        return SVIO_ST_NO_SPACE;
    return reply(command, list.data(), list.size());
}

uint16_t AdminQueue::accept_options(const svio_command &command) {
    if (command.data_len > options_max)
        return SVIO_ST_INVALID;
    std::vector<uint8_t> list(command.data_len);
    if (!list.empty() && !physical_.memory().read(command.data_addr, list.data(), list.size()))
        return SVIO_ST_DMA;
    uint32_t wanted = 0;
    for (size_t at = 0; at < list.size();) {
        svio_option option;
        if (list.size() - at < sizeof(option))
            return SVIO_ST_INVALID;
        std::memcpy(&option, list.data() + at, sizeof(option));
        at += sizeof(option);
        if (option.id == SVIO_OPTION_END)
            break;
        if (option.length % 8 != 0 || option.length > list.size() - at)
            return SVIO_ST_INVALID;
        at += option.length;
        if (option.id >= 32 || !(offered() & 1u << option.id))
            return SVIO_ST_UNSUPPORTED;
        wanted |= 1u << option.id;
    }
    accepted_ = wanted;
    return SVIO_ST_OK;
}

uint16_t AdminQueue::fetch_config(const svio_command &command, svio_vif_config &config) {
    if (command.data_len < sizeof(config))
        return SVIO_ST_NO_SPACE;
    if (!physical_.memory().read(command.data_addr, &config, sizeof(config)))
        return SVIO_ST_DMA;
    if ((config.mask & (SVIO_CFG_RATE | SVIO_CFG_WEIGHT | SVIO_CFG_QOS_LIMIT)) && !accepted(SVIO_OPTION_QOS))
        return SVIO_ST_UNSUPPORTED;
    if ((config.mask & SVIO_CFG_CORE) && !accepted(SVIO_OPTION_CORE_MAP))
        return SVIO_ST_UNSUPPORTED;
    return SVIO_ST_OK;
}

uint16_t AdminQueue::create(svio_command &command) {
    svio_vif_config config;
    if (uint16_t status = fetch_config(command, config))
        return status;
    std::optional<uint32_t> slot;
    if (command.slot != SVIO_SLOT_SELF)
        slot = command.slot;
    uint64_t id = 0;
    Answer answer = management_.create(slot, config, id);
    if (answer.ok())
        command.u.vif.id = id;
    return answer.status;
}

uint16_t AdminQueue::reconfigure(const svio_command &command) {
    svio_vif_config config;
    if (uint16_t status = fetch_config(command, config))
        return status;
    return management_.reconfigure(target_of(command), config).status;
}

uint16_t AdminQueue::query(svio_command &command) {
    const VifRecord *record = management_.find(target_of(command));
    if (!record)
        return SVIO_ST_NOT_FOUND;
    svio_vif_config config = management_.config_of(*record);
    if (command.data_len < sizeof(config))
        return SVIO_ST_NO_SPACE;
    return reply(command, &config, sizeof(config));
}

template <typename Record>
uint16_t AdminQueue::reply_list(svio_command &command, const std::vector<Record> &records) {
    if (command.data_len < sizeof(Record))
        return SVIO_ST_NO_SPACE;
    size_t count = std::min(records.size(), command.data_len / sizeof(Record));
    command.u.list.count = 0;
    if (count != 0) {
        if (uint16_t status = reply(command, records.data(), count * sizeof(Record)))
            return status;
    }
    command.u.list.count = static_cast<uint32_t>(count);
    return SVIO_ST_OK;
}

uint16_t AdminQueue::list_vifs(svio_command &command) {
    std::vector<svio_vif_info> records;
    uint32_t place = management_.board().vifs(); // of the first that is unbound
    for (const VifRecord *record : management_.list()) {
        if ((record->bound() ? record->slot : place++) >= command.u.list.first)
            records.push_back(management_.info_of(*record));
    }
    return reply_list(command, records);
}

uint16_t AdminQueue::list_cores(svio_command &command) {
    std::vector<svio_core_info> records;
    for (uint32_t core = command.u.list.first; core < management_.board().cores(); core++)
        records.push_back(management_.core_info(core));
    return reply_list(command, records);
}

} // namespace svio
