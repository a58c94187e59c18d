// SPDX-License-Identifier: GPL-2.0-or-later
#include "management_json.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace svio {

namespace {

// Objects keep the order in which they are written here.
using Json = nlohmann::ordered_json;

constexpr const char *link_names[] = {"auto", "up", "down"};

/// Ends the work on a request.
struct Refused {
    uint16_t status;
    std::string why;
};

[[noreturn]] void invalid(const std::string &why) {
    throw Refused{SVIO_ST_INVALID, why};
}

std::string text_of(const Json &json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void put_status(Json &to, uint16_t status, const std::string &why) {
    to["status"] = status_names[status];
    if (status != SVIO_ST_OK && status != SVIO_ST_TRIMMED)
        to["error"] = why;
}

// ---- reading ----

uint64_t number_of(const Json &value, const char *key, uint64_t max) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > max)
        invalid(std::string(key) + " is a number from 0 to " + std::to_string(max));
    return value.get<uint64_t>();
}

uint32_t number32(const Json &value, const char *key) {
    return static_cast<uint32_t>(number_of(value, key, UINT32_MAX));
}

uint8_t flag_of(const Json &value, const char *key) {
    if (!value.is_boolean())
        invalid(std::string(key) + " is true or false");
    return value.get<bool>();
}

const std::string &string_of(const Json &value, const char *key) {
    if (!value.is_string())
        invalid(std::string(key) + " is a string");
    return value.get_ref<const std::string &>();
}

void read_mac(const Json &value, uint8_t *mac) {
    const std::string &text = string_of(value, "mac");
    auto digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
    };
    bool good = text.size() == 17;
    for (size_t i = 0; good && i < 6; i++) {
        int high = digit(text[3 * i]), low = digit(text[3 * i + 1]);
        good = high >= 0 && low >= 0 && (i == 5 || text[3 * i + 2] == ':');
        if (good)
            mac[i] = static_cast<uint8_t>(high << 4 | low);
    }
    if (!good)
        invalid("a MAC looks like 52:54:00:12:34:56");
}

/// A number, or a word for the largest one.
uint32_t number_or(const char *word, const Json &value, const std::string &wrong) {
    if (value == word)
        return UINT32_MAX;
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= UINT32_MAX)
        invalid(wrong);
    return static_cast<uint32_t>(value.get<uint64_t>());
}
static_assert(SVIO_CORE_AUTO == UINT32_MAX && SVIO_NEIGHBOURS_NONE == UINT32_MAX);

uint32_t core_of(const Json &value) {
    return number_or("auto", value, "core is a number or \"auto\"");
}

uint32_t neighbours_of(const Json &value) {
    return number_or("none", value, "neighbours is the number of a group, or \"none\"");
}

uint8_t link_of(const Json &value) {
    for (uint8_t n = 0; n < std::size(link_names); n++) {
        if (value == link_names[n])
            return n;
    }
    invalid("link is \"auto\", \"up\" or \"down\"");
}

void read_name(const Json &value, svio_vif_config &config) {
    const std::string &name = string_of(value, "name");
    if (name.size() >= sizeof(config.name))
        invalid("a name has at most " + std::to_string(sizeof(config.name) - 1) + " bytes");
    if (name.find('\0') != std::string::npos)
        invalid("a name is UTF-8 without control characters");
    std::fill(std::begin(config.name), std::end(config.name), uint8_t{0});
    std::copy(name.begin(), name.end(), config.name);
}

void read_limit(const Json &value, svio_vif_config &config) {
    if (!value.is_object())
        invalid("qos_limit is an object");
    for (const auto &[key, item] : value.items()) {
        if (key == "min_mbps")
            config.limit_min_mbps = number32(item, "min_mbps");
        else if (key == "max_mbps")
            config.limit_max_mbps = number32(item, "max_mbps");
        else if (key == "weight")
            config.limit_weight = number32(item, "weight");
        else
            invalid("qos_limit has min_mbps, max_mbps and weight");
    }
}

/// Reads one setting, and says which bit of the mask it is. What a bit has besides this setting stays as it
/// is in `config`.
struct Setting {
    const char *key;
    uint32_t bit;
    void (*read)(const Json &value, svio_vif_config &config);
};

const Setting settings[] = {
    {"mac", SVIO_CFG_MAC, [](const Json &v, svio_vif_config &c) { read_mac(v, c.mac); }},
    {"vlan", SVIO_CFG_VLAN,
     [](const Json &v, svio_vif_config &c) {
         auto vid = static_cast<uint16_t>(number_of(v, "vlan", 4094));
         // No VLAN has no priority either.
         c.vlan = vid == 0 ? uint16_t{0} : static_cast<uint16_t>((c.vlan & 0xe000) | vid);
     }},
    {"priority", SVIO_CFG_VLAN,
     [](const Json &v, svio_vif_config &c) {
         c.vlan = static_cast<uint16_t>((c.vlan & SVIO_VLAN_VID) | number_of(v, "priority", 7)
                                                                       << SVIO_VLAN_PRIORITY_SHIFT);
     }},
    {"trust", SVIO_CFG_TRUST, [](const Json &v, svio_vif_config &c) { c.trust = flag_of(v, "trust"); }},
    {"spoof_check", SVIO_CFG_SPOOF_CHECK,
     [](const Json &v, svio_vif_config &c) { c.spoof_check = flag_of(v, "spoof_check"); }},
    {"allow_promisc", SVIO_CFG_PROMISC,
     [](const Json &v, svio_vif_config &c) { c.allow_promisc = flag_of(v, "allow_promisc"); }},
    {"allow_multicast", SVIO_CFG_MULTICAST,
     [](const Json &v, svio_vif_config &c) { c.allow_multicast = flag_of(v, "allow_multicast"); }},
    {"guest_tagging", SVIO_CFG_GUEST_TAGGING,
     [](const Json &v, svio_vif_config &c) { c.guest_tagging = flag_of(v, "guest_tagging"); }},
    {"link", SVIO_CFG_LINK, [](const Json &v, svio_vif_config &c) { c.link = link_of(v); }},
    {"queue_pairs", SVIO_CFG_QUEUES,
     [](const Json &v, svio_vif_config &c) {
         c.queue_pairs = static_cast<uint16_t>(number_of(v, "queue_pairs", UINT16_MAX));
     }},
    {"queue_size", SVIO_CFG_QUEUES,
     [](const Json &v, svio_vif_config &c) { c.queue_size = number32(v, "queue_size"); }},
    {"min_mbps", SVIO_CFG_RATE,
     [](const Json &v, svio_vif_config &c) { c.min_mbps = number32(v, "min_mbps"); }},
    {"max_mbps", SVIO_CFG_RATE,
     [](const Json &v, svio_vif_config &c) { c.max_mbps = number32(v, "max_mbps"); }},
    {"weight", SVIO_CFG_WEIGHT, [](const Json &v, svio_vif_config &c) { c.weight = number32(v, "weight"); }},
    {"core", SVIO_CFG_CORE, [](const Json &v, svio_vif_config &c) { c.core = core_of(v); }},
    {"neighbours", SVIO_CFG_NEIGHBOURS,
     [](const Json &v, svio_vif_config &c) { c.neighbours = neighbours_of(v); }},
    {"name", SVIO_CFG_NAME, read_name},
    {"qos_limit", SVIO_CFG_QOS_LIMIT, read_limit},
};

/// A VLAN before its priority, whatever their order in the request.
void read_settings(const Json &set, svio_vif_config &config) {
    if (!set.is_object())
        invalid("set is an object");
    config.mask = 0;
    for (const auto &[key, value] : set.items()) {
        if (std::none_of(std::begin(settings), std::end(settings),
                         [&name = key](auto &s) { return name == s.key; }))
            invalid("there is no setting " + key.substr(0, 40));
    }
    for (const Setting &setting : settings) {
        auto at = set.find(setting.key);
        if (at == set.end())
            continue;
        setting.read(*at, config);
        config.mask |= setting.bit;
    }
}

// ---- writing ----

std::string mac_text(const uint8_t *mac) {
    char text[18];
    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
             mac[5]);
    return text;
}

Json json_or(const char *word, uint32_t value) {
    return value == UINT32_MAX ? Json(word) : Json(value);
}

Json machine_json(const Vif *function) {
    if (!function || !function->machine())
        return nullptr;
    const Machine &machine = *function->machine();
    return {{"name", machine.name}, {"pid", machine.pid != 0 ? Json(machine.pid) : Json(nullptr)}};
}

Json vif_json(const Management &management, const VifRecord &record) {
    const VifSettings &s = record.settings;
    const svio_vif_info info = management.info_of(record);
    Vif *function = management.function_of(record);
    Json json;
    json["id"] = s.id;
    json["slot"] = record.bound() ? Json(record.slot) : Json(nullptr);
    json["kind"] = "net";
    json["name"] = s.name;
    json["mac"] = mac_text(info.mac);
    json["permanent_mac"] = mac_text(s.mac.data());
    json["vlan"] = s.vlan & SVIO_VLAN_VID;
    json["priority"] = s.vlan >> SVIO_VLAN_PRIORITY_SHIFT;
    json["trust"] = s.trust;
    json["spoof_check"] = s.spoof_check;
    json["allow_promisc"] = s.allow_promisc;
    json["allow_multicast"] = s.allow_multicast;
    json["guest_tagging"] = s.guest_tagging;
    json["link"] = link_names[s.link];
    json["link_up"] = info.link_up != 0;
    json["running"] = function && function->active();
    json["queue_pairs"] = s.queue_pairs;
    json["queue_size"] = s.queue_size;
    json["min_mbps"] = s.min_mbps;
    json["max_mbps"] = s.max_mbps;
    json["weight"] = s.weight;
    json["qos_limit"] = {{"min_mbps", record.limit.min_mbps},
                         {"max_mbps", record.limit.max_mbps},
                         {"weight", record.limit.weight}};
    json["core"] = json_or("auto", s.core);
    json["neighbours"] = json_or("none", s.neighbours);
    json["serving_cores"] = Json::array();
    for (unsigned pair = 0; function && pair < function->pairs(); pair++)
        json["serving_cores"].push_back(function->pair(pair).core);
    json["automatic"] = record.automatic;
    json["vm"] = machine_json(function);
    return json;
}

Json vifs_json(const Management &management) {
    Json json = Json::array();
    for (const VifRecord *record : management.list())
        json.push_back(vif_json(management, *record));
    return json;
}

// [least value, count] of the buckets that have something.
Json stage_times_json(const StageTimes &times) {
    Json json = Json::object();
    for (size_t stage = 0; stage < StageCount; stage++) {
        Json &list = json[Json::json_pointer("/" + std::string(stage_names[stage]))] = Json::array();
        for (size_t bucket = 0; bucket < Histogram::buckets; bucket++) {
            if (uint64_t count = times.of(static_cast<Stage>(stage)).get(bucket))
                list.push_back({Histogram::least(bucket), count});
        }
    }
    return json;
}

Json cores_json(const Management &management) {
    Json json = Json::array();
    for (unsigned core = 0; core < management.board().cores(); core++) {
        svio_core_info info = management.core_info(core);
        json.push_back({{"core", info.core},
                        {"queues", info.queues},
                        {"polls", info.polls},
                        {"empty_polls", info.empty_polls},
                        {"sleeps", info.sleeps},
                        {"busy_ns", info.busy_ns}});
        if (const StageTimes &times = management.board().core(core).times(); times.on())
            json.back()["stage_times"] = stage_times_json(times);
    }
    return json;
}

Json info_json(const Management &management) {
    Board &board = management.board();
    return {{"abi", std::to_string(SVIO_ABI_MAJOR) + "." + std::to_string(SVIO_ABI_MINOR)},
            {"slots", management.slots()},
            {"cores", board.cores()},
            {"auto_vif", management.config().auto_vif},
            {"port_mbps", management.config().port_mbps},
            {"speed_mbps", board.port().speed_mbps()}};
}

template <typename Counters, size_t N>
Json counters_json(const Counters &counters, const std::array<const char *, N> &names) {
    Json json;
    for (size_t i = 0; i < N; i++)
        json[names[i]] = counters.get(i);
    return json;
}

// ---- requests ----

/// A request, and what is to be answered.
class Request {
  public:
    Request(const Json &request, Management &management, Json &reply)
        : request_(request), management_(management), reply_(reply) {}

    Answer run();

  private:
    using Handler = Answer (Request::*)();
    struct Operation {
        const char *name;
        Handler handler;
        std::vector<const char *> keys;
    };

    const Json *field(const char *key) const {
        auto at = request_.find(key);
        return at == request_.end() ? nullptr : &*at;
    }
    const Json &wanted(const char *key) const {
        const Json *value = field(key);
        if (!value)
            invalid(std::string(key) + " is missing");
        return *value;
    }
    Target target(bool by_slot = true) const;
    /// What `set` leaves out stays as it is with `record`.
    svio_vif_config settings_from(const VifRecord &record) const;
    void show(const Target &target);

    Answer info();
    Answer list();
    Answer vif_show();
    Answer create();
    Answer destroy() { return management_.destroy(target()); }
    Answer set();
    Answer bind();
    Answer unbind() { return management_.unbind(target()); }
    Answer stats();
    Answer port_stats();
    Answer cores();
    Answer map_core();

    const Json &request_;
    Management &management_;
    Json &reply_;
};

Answer Request::run() {
    static const Operation operations[] = {
        {"info", &Request::info, {}},
        {"vif-list", &Request::list, {}},
        {"vif-show", &Request::vif_show, {"slot", "id", "name"}},
        {"vif-create", &Request::create, {"slot", "set"}},
        {"vif-destroy", &Request::destroy, {"slot", "id", "name"}},
        {"vif-set", &Request::set, {"slot", "id", "name", "set"}},
        {"vif-bind", &Request::bind, {"slot", "id", "name"}},
        {"vif-unbind", &Request::unbind, {"slot", "id", "name"}},
        {"vif-stats", &Request::stats, {"slot", "id", "name"}},
        {"port-stats", &Request::port_stats, {}},
        {"core-list", &Request::cores, {}},
        {"core-map", &Request::map_core, {"slot", "id", "name", "core"}},
    };
    const std::string &name = string_of(wanted("op"), "op");
    for (const Operation &operation : operations) {
        if (name != operation.name)
            continue;
        for (const auto &[key, value] : request_.items()) {
            bool known = key == "op" || key == "tag" ||
                         std::any_of(operation.keys.begin(), operation.keys.end(),
                                     [&, &k = key](const char *one) { return k == one; });
            if (!known)
                invalid(name + " knows no " + key.substr(0, 40));
        }
        return (this->*operation.handler)();
    }
    return {SVIO_ST_UNSUPPORTED, "there is no operation " + name.substr(0, 40)};
}

Target Request::target(bool by_slot) const {
    Target target;
    int given = 0;
    if (const Json *slot = by_slot ? field("slot") : nullptr) {
        // The last number means "none" elsewhere, and is no slot in any case.
        target.slot = static_cast<uint32_t>(number_of(*slot, "slot", SVIO_SLOT_SELF - 1));
        given++;
    }
    if (const Json *id = field("id")) {
        target.id = number_of(*id, "id", UINT64_MAX);
        given++;
    }
    if (const Json *name = field("name")) {
        target.name = string_of(*name, "name");
        given++;
    }
    if (given != 1)
        invalid(std::string("a VIF is named by one of ") + (by_slot ? "slot, " : "") + "id and name");
    return target;
}

void Request::show(const Target &target) {
    if (const VifRecord *record = management_.find(target)) // an interrupt may have let a guest in meanwhile
        reply_["vif"] = vif_json(management_, *record);
}

Answer Request::info() {
    reply_["info"] = info_json(management_);
    return {};
}

Answer Request::list() {
    reply_["vifs"] = vifs_json(management_);
    return {};
}

Answer Request::vif_show() {
    const VifRecord *record = management_.find(target());
    if (!record)
        return {SVIO_ST_NOT_FOUND, "there is no such VIF"};
    reply_["vif"] = vif_json(management_, *record);
    return {};
}

svio_vif_config Request::settings_from(const VifRecord &record) const {
    svio_vif_config config = management_.config_of(record);
    config.min_mbps = record.own.min_mbps;
    config.max_mbps = record.own.max_mbps;
    config.weight = record.own.weight;
    config.mask = 0;
    if (const Json *set = field("set"))
        read_settings(*set, config);
    return config;
}

Answer Request::create() {
    std::optional<uint32_t> slot;
    if (const Json *value = field("slot"); value && !value->is_null())
        slot = static_cast<uint32_t>(number_of(*value, "slot", SVIO_SLOT_SELF - 1));
    svio_vif_config config = settings_from(management_.fresh(slot));
    uint64_t id = 0;
    Answer answer = management_.create(slot, config, id);
    if (answer.ok()) {
        reply_["id"] = id;
        show({.slot = {}, .id = id, .name = {}});
    }
    return answer;
}

Answer Request::set() {
    Target which = target();
    wanted("set");
    const VifRecord *record = management_.find(which);
    if (!record)
        return {SVIO_ST_NOT_FOUND, "there is no such VIF"};
    uint64_t id = record->settings.id; // its name may change
    svio_vif_config config = settings_from(*record);
    Answer answer = management_.reconfigure(which, config);
    if (answer.ok())
        show({.slot = {}, .id = id, .name = {}});
    return answer;
}

Answer Request::bind() {
    Target which = target(false);
    auto slot = static_cast<uint32_t>(number_of(wanted("slot"), "slot", SVIO_SLOT_SELF - 1));
    Answer answer = management_.bind(which, slot);
    if (answer.ok())
        show(which);
    return answer;
}

Answer Request::stats() {
    const VifRecord *record = management_.find(target());
    if (!record)
        return {SVIO_ST_NOT_FOUND, "there is no such VIF"};
    Vif *function = management_.function_of(*record);
    if (!function)
        return {SVIO_ST_STATE, "the VIF is not bound to a slot, and has no counters"};
    reply_["id"] = record->settings.id;
    reply_["slot"] = record->slot;
    reply_["counters"] = counters_json(function->counters, vif_stat_names);
    reply_["queues"] = Json::array();
    for (unsigned n = 0; n < function->pairs(); n++) {
        Vif::Pair &pair = function->pair(n);
        reply_["queues"].push_back({{"send", counters_json(pair.send.counters, queue_stat_names)},
                                    {"receive", counters_json(pair.receive.counters, queue_stat_names)}});
    }
    return {};
}

Answer Request::port_stats() {
    Json &counters = reply_["counters"] = Json::object();
    management_.board().visit_port_counters(
        [&counters](const char *name, uint64_t value) { counters[name] = value; });
    return {};
}

Answer Request::cores() {
    reply_["cores"] = cores_json(management_);
    return {};
}

Answer Request::map_core() {
    Target which = target();
    Answer answer = management_.map_core(which, core_of(wanted("core")));
    if (answer.ok())
        show(which);
    return answer;
}

} // namespace

// ---- doors ----

struct JsonCommand::Parts {
    Json request;
    Json tag;
    Json reply;
    uint16_t status = SVIO_ST_INVALID;
    std::string why;
};

JsonCommand::JsonCommand(std::string_view line) : parts_(std::make_unique<Parts>()) {
    parts_->request = Json::parse(line, nullptr, false);
    if (parts_->request.is_discarded()) {
        parts_->why = "this is no JSON";
        return;
    }
    if (!parts_->request.is_object()) {
        parts_->why = "a request is a JSON object";
        return;
    }
    // Nothing that is nested: it is written recursively, and would take the stack that the line may say.
    if (auto tag = parts_->request.find("tag"); tag != parts_->request.end()) {
        if (!tag->is_number() && !tag->is_string()) {
            parts_->why = "tag is a number or a string";
            return;
        }
        parts_->tag = *tag;
    }
    parts_->status = SVIO_ST_OK;
}

JsonCommand::~JsonCommand() = default;

void JsonCommand::run(Management &management) {
    if (parts_->status != SVIO_ST_OK)
        return;
    try {
        Answer answer = Request(parts_->request, management, parts_->reply).run();
        parts_->status = answer.status;
        parts_->why = answer.why;
    } catch (const Refused &refused) {
        parts_->status = refused.status;
        parts_->why = refused.why;
    }
}

std::string JsonCommand::answer() const {
    Json answer;
    put_status(answer, parts_->status, parts_->why);
    if (!parts_->tag.is_null())
        answer["tag"] = parts_->tag;
    if (parts_->reply.is_object()) {
        for (const auto &[key, value] : parts_->reply.items())
            answer[key] = value;
    }
    return text_of(answer);
}

std::string refusal_json(uint16_t status, const std::string &why) {
    Json answer;
    put_status(answer, status, why);
    return text_of(answer);
}

std::string query_json(const Management &management, std::string_view what) {
    if (what == "vifs")
        return text_of(vifs_json(management));
    if (what == "cores")
        return text_of(cores_json(management));
    if (what == "info")
        return text_of(info_json(management));
    if (what == "all")
        return text_of({{"info", info_json(management)},
                        {"vifs", vifs_json(management)},
                        {"cores", cores_json(management)}});
    return refusal_json(SVIO_ST_NOT_FOUND, "there is nothing of this name");
}

} // namespace svio
