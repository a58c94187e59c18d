// SPDX-License-Identifier: GPL-2.0-or-later
#include "attach.hpp"

#include "event_writer.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <type_traits>
#include <unistd.h>

namespace svio {

// ---- the form of packets ----

namespace {

/// The payload, which is to be just this.
template <typename Struct> Struct whole(std::span<const uint8_t> payload) {
    static_assert(std::is_trivially_copyable_v<Struct>);
    if (payload.size() != sizeof(Struct))
        throw ProtocolError("a payload has " + std::to_string(payload.size()) + " bytes instead of " +
                            std::to_string(sizeof(Struct)));
    Struct found;
    memcpy(&found, payload.data(), sizeof(found));
    return found;
}

template <typename Struct> void append(std::vector<uint8_t> &to, const Struct &what) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(&what);
    to.insert(to.end(), bytes, bytes + sizeof(what));
}

std::vector<RegionConfig> regions_of(std::span<const uint8_t> payload) {
    if (payload.size() < sizeof(svio_attach_memory))
        throw ProtocolError("a memory table is shorter than its head");
    auto head = whole<svio_attach_memory>(payload.first(sizeof(svio_attach_memory)));
    payload = payload.subspan(sizeof(head));
    if (head.count > SVIO_ATTACH_REGIONS_MAX || payload.size() != head.count * sizeof(svio_attach_region))
        throw ProtocolError("a memory table of " + std::to_string(payload.size()) +
                            " bytes says that it has " + std::to_string(head.count) + " regions");
    std::vector<RegionConfig> regions;
    for (size_t n = 0; n < head.count; n++) {
        svio_attach_region region;
        memcpy(&region, payload.data() + n * sizeof(region), sizeof(region));
        regions.push_back({.address = region.address, .size = region.size, .offset = region.offset});
    }
    return regions;
}

/// Descriptors that the request must bring.
size_t descriptors_of(const AttachRequest &request) {
    switch (request.request) {
    case SVIO_ATTACH_MEMORY:
        return request.regions.size();
    case SVIO_ATTACH_SIGNALS:
    case SVIO_ATTACH_BELLS:
        return request.count;
    default:
        return 0;
    }
}

void parse_payload(AttachRequest &request, std::span<const uint8_t> payload) {
    switch (request.request) {
    case SVIO_ATTACH_HELLO: {
        auto hello = whole<svio_attach_hello>(payload);
        request.version = hello.version;
        request.features = hello.features;
        break;
    }
    case SVIO_ATTACH_ATTACH:
        request.vif = whole<svio_attach_vif>(payload);
        break;
    case SVIO_ATTACH_MEMORY:
        request.regions = regions_of(payload);
        break;
    case SVIO_ATTACH_SIGNALS:
    case SVIO_ATTACH_BELLS:
    case SVIO_ATTACH_DMA:
        request.count = whole<svio_attach_count>(payload).count;
        break;
    case SVIO_ATTACH_READ:
    case SVIO_ATTACH_WRITE: {
        auto access = whole<svio_attach_register>(payload);
        request.offset = access.offset;
        request.value = access.value;
        break;
    }
    case SVIO_ATTACH_BAD_ACCESS:
    case SVIO_ATTACH_RESET:
    case SVIO_ATTACH_PAGES:
        if (!payload.empty())
            throw ProtocolError("a request without a payload has one");
        break;
    default: // of a later version, perhaps
        break;
    }
}

bool is_eventfd(const Descriptor &descriptor) {
    char target[32] = "";
    std::string link = "/proc/self/fd/" + std::to_string(descriptor.get());
    ssize_t length = readlink(link.c_str(), target, sizeof(target));
    return std::string_view(target, static_cast<size_t>(std::max<ssize_t>(length, 0))) ==
           "anon_inode:[eventfd]";
}

bool all_eventfds(const std::vector<Descriptor> &descriptors) {
    return std::all_of(descriptors.begin(), descriptors.end(), is_eventfd);
}

template <size_t size> std::string text_of(const __u8 (&field)[size]) {
    return {reinterpret_cast<const char *>(field), strnlen(reinterpret_cast<const char *>(field), size)};
}

/// It goes to people's terminals and to the log, and may have been cut within a character.
std::string printable(std::string text) {
    if (!printable_utf8(text))
        std::replace_if(
            text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return text;
}

} // namespace

AttachRequest parse_attach(std::span<const uint8_t> packet, size_t descriptors) {
    if (packet.size() < sizeof(svio_attach_header))
        throw ProtocolError("a packet of " + std::to_string(packet.size()) +
                            " bytes is shorter than its header");
    auto header = whole<svio_attach_header>(packet.first(sizeof(svio_attach_header)));
    std::span<const uint8_t> payload = packet.subspan(sizeof(header));
    if (header.length != payload.size())
        throw ProtocolError("a header says " + std::to_string(header.length) + " bytes, and " +
                            std::to_string(payload.size()) + " follow");
    if (header.request & SVIO_ATTACH_ANSWER || header.status != 0)
        throw ProtocolError("a request has the form of an answer");
    AttachRequest request;
    request.request = header.request;
    request.tag = header.tag;
    parse_payload(request, payload);
    if (header.request < SVIO_ATTACH_COUNT && descriptors_of(request) != descriptors)
        throw ProtocolError("a request that wants " + std::to_string(descriptors_of(request)) +
                            " descriptors came with " + std::to_string(descriptors));
    return request;
}

// ---- the board ----

// The peer's half: it says that it does not look any more, then looks once more.
bool ClientSignals::seen_in_page(unsigned vector) const {
    if (!page_)
        return false;
    page_->word(offsetof(svio_attach_raised, vectors)).fetch_or(1u << vector, std::memory_order_seq_cst);
    return page_->word(offsetof(svio_attach_raised, watchers)).load(std::memory_order_seq_cst) != 0;
}

bool ClientSignals::raise_unlocked(unsigned vector) {
    if (vector >= eventfds_.size() || seen_in_page(vector))
        return true; // nobody listens, or needs no eventfd
    EventWriter::of_this_thread().add(eventfds_[vector].get());
    return true;
}

Attachments::Attachments(const Config &config, std::unique_ptr<Port> port) {
    board_ = std::make_unique<Board>(config.board, lock_, clock_, hooks_, std::move(port));
    for (uint32_t slot = 0; slot <= config.slots; slot++) {
        Function &function = functions_.emplace_back();
        FunctionConfig vif;
        vif.mac = config.mac;
        vif.id = config.first_id;
        vif.slot = slot;
        vif.physical = slot == 0;
        vif.queue_pairs = SVIO_MAX_QUEUE_PAIRS;
        vif.queue_size_max = SVIO_QUEUE_MAX;
        if (vif.physical)
            board_->add_vif(vif, function.memory, function.signals);
        else
            board_->add_function(vif, function.memory, function.signals);
    }
    ManagementCoreConfig management;
    management.management = {.auto_vif = false, .port_mbps = config.board.port_mbps, .shared_signals = false};
    management.socket = config.mgmt;
    core_ = std::make_unique<ManagementCore>(*board_, management);
    board_->start();
    if (config.board.threads) // else the caller does their work
        core_->start();
}

Attachments::~Attachments() {
    core_->stop();
    board_->stop();
}

// ---- a connection ----

Attached::~Attached() {
    detach();
}

uint32_t Attached::refuse(uint32_t status, std::string why) {
    refusal_ = std::move(why);
    return status;
}

std::vector<uint8_t> Attached::handle(std::span<const uint8_t> packet, std::vector<Descriptor> descriptors) {
    AttachRequest request = parse_attach(packet, descriptors.size());
    std::vector<uint8_t> payload, answer;
    refusal_.clear();
    answer_descriptors_.clear();
    uint32_t status = run(request, descriptors, payload);
    if (status != SVIO_ST_OK)
        payload.clear();
    append(answer, svio_attach_header{.request = request.request | SVIO_ATTACH_ANSWER,
                                      .tag = request.tag,
                                      .status = status,
                                      .length = static_cast<uint32_t>(payload.size())});
    answer.insert(answer.end(), payload.begin(), payload.end());
    return answer;
}

uint32_t Attached::run(AttachRequest &request, std::vector<Descriptor> &descriptors,
                       std::vector<uint8_t> &answer) {
    if (request.request == SVIO_ATTACH_HELLO) {
        if (request.version < SVIO_ATTACH_VERSION)
            return refuse(SVIO_ST_UNSUPPORTED,
                          "the peer speaks version " + std::to_string(request.version) + " of the protocol");
        greeted_ = true;
        features_ = request.features & SVIO_ATTACH_F_PAGES;
        append(answer, svio_attach_hello{SVIO_ATTACH_VERSION, SVIO_VECTORS, features_});
        return SVIO_ST_OK;
    }
    if (request.request == 0 || request.request >= SVIO_ATTACH_COUNT)
        return refuse(SVIO_ST_UNSUPPORTED, "there is no request " + std::to_string(request.request));
    if (!greeted_ || (request.request == SVIO_ATTACH_ATTACH) == slot_.has_value())
        return refuse(SVIO_ST_STATE, "a request came out of order");
    std::lock_guard guard(all_.lock());
    Board &board = all_.board();
    switch (request.request) {
    case SVIO_ATTACH_ATTACH:
        return attach(request, answer);
    case SVIO_ATTACH_MEMORY:
        return replace_memory(request, descriptors);
    case SVIO_ATTACH_SIGNALS: {
        if (request.count > SVIO_VECTORS || !all_eventfds(descriptors))
            return refuse(SVIO_ST_INVALID, "signals are not eventfds, or more than there are vectors");
        Pause pause(board);
        function().signals.replace(std::move(descriptors));
        return SVIO_ST_OK;
    }
    case SVIO_ATTACH_BELLS:
        if (request.count > 2 * SVIO_MAX_QUEUE_PAIRS || !all_eventfds(descriptors))
            return refuse(SVIO_ST_INVALID, "doorbells are not eventfds, or more than there are queues");
        board.set_bells(vif(), std::move(descriptors));
        return SVIO_ST_OK;
    case SVIO_ATTACH_READ:
        append(answer, svio_attach_register{request.offset, vif().read_register(request.offset)});
        return SVIO_ST_OK;
    case SVIO_ATTACH_WRITE:
        vif().write_register(request.offset, request.value);
        return SVIO_ST_OK;
    case SVIO_ATTACH_BAD_ACCESS:
        vif().bad_access();
        return SVIO_ST_OK;
    case SVIO_ATTACH_RESET:
        vif().reset();
        return SVIO_ST_OK;
    case SVIO_ATTACH_PAGES:
        return share_pages();
    default: { // DMA
        if (request.count > 1)
            return refuse(SVIO_ST_INVALID, "DMA is neither 0 nor 1");
        {
            Pause pause(board);
            vif().set_dma(request.count == 1);
        }
        board.receive_ready(vif());
        return SVIO_ST_OK;
    }
    }
}

uint32_t Attached::replace_memory(const AttachRequest &request, const std::vector<Descriptor> &descriptors) {
    Pause pause(all_.board());
    std::string why = function().memory.replace(request.regions, descriptors);
    return why.empty() ? SVIO_ST_OK : refuse(SVIO_ST_INVALID, why);
}

uint32_t Attached::share_pages() {
    if (!(features_ & SVIO_ATTACH_F_PAGES))
        return refuse(SVIO_ST_UNSUPPORTED, "pages were not agreed upon");
    ClientSignals &signals = function().signals;
    try {
        auto page = std::make_unique<SharedPage>("svio-raised", SharedPage::Peers::Write);
        Pause pause(all_.board());
        signals.replace(std::move(page));
    } catch (const std::system_error &error) {
        return refuse(SVIO_ST_NO_SPACE, error.what());
    }
    answer_descriptors_ = {all_.hooks_.fd(), signals.page()->fd()};
    return SVIO_ST_OK;
}

uint32_t Attached::attach(const AttachRequest &request, std::vector<uint8_t> &answer) {
    auto &functions = all_.functions_;
    uint32_t slot = 1;
    // A slot may have been filled by management, for a machine that is to come by its name.
    while (slot < functions.size() && (functions[slot].taken || all_.board().vif(slot).present()))
        slot++;
    if (slot == functions.size())
        return refuse(SVIO_ST_NO_SPACE, "all slots are taken");
    if (uint32_t status = place_vif(slot, request.vif); status != SVIO_ST_OK)
        return status;
    vif().set_machine(Machine{printable(text_of(request.vif.machine)), pid_});
    append(answer, svio_attach_place{*slot_, 0, vif().settings().id});
    return SVIO_ST_OK;
}

/// A VIF of that name which waits for its machine, or a new one.
uint32_t Attached::place_vif(uint32_t slot, const svio_attach_vif &wanted) {
    Management &management = all_.core().management();
    svio_vif_config config{};
    config.kind = SVIO_KIND_NET;
    config.mask = SVIO_CFG_QUEUES;
    config.queue_pairs = wanted.queue_pairs;
    config.queue_size =
        wanted.queue_size != 0 ? wanted.queue_size : all_.board().vif(slot).config().queue_size_hint;
    if (Mac none{}; memcmp(wanted.mac, none.data(), none.size()) != 0) {
        config.mask |= SVIO_CFG_MAC;
        memcpy(config.mac, wanted.mac, sizeof(config.mac));
    }
    std::string name = text_of(wanted.name);
    const VifRecord *waiting = management.find({.slot = {}, .id = {}, .name = name});
    Answer done;
    if (waiting && waiting->bound())
        return refuse(SVIO_ST_EXISTS, "the VIF \"" + name + "\" is another machine's");
    if (waiting) {
        // What management has said of it goes first.
        Target target{.slot = {}, .id = waiting->settings.id, .name = {}};
        done = management.bind(target, slot);
    } else {
        uint64_t id = 0;
        if (!name.empty()) {
            config.mask |= SVIO_CFG_NAME;
            memcpy(config.name, wanted.name, sizeof(config.name));
        }
        done = management.create(slot, config, id);
    }
    if (!done.ok())
        return refuse(done.status, done.why);
    made_ = !waiting;
    slot_ = slot;
    function().taken = true;
    return SVIO_ST_OK;
}

void Attached::detach() {
    if (!slot_)
        return;
    std::lock_guard guard(all_.lock());
    {
        Pause pause(all_.board());
        vif().set_dma(false);
    }
    all_.board().set_bells(vif(), {});
    // Its queues let go of the memory before that goes.
    vif().reset();
    Target target{.slot = *slot_, .id = {}, .name = {}};
    if (!made_)
        all_.core().management().unbind(target);
    if (made_ || vif().present()) // with no room for it among the unbound
        all_.core().management().destroy(target);
    Pause pause(all_.board());
    function().memory.clear();
    function().signals.replace(std::vector<Descriptor>());
    function().signals.replace(std::unique_ptr<SharedPage>());
    function().taken = false;
    vif().set_machine({});
    slot_.reset();
}

} // namespace svio
