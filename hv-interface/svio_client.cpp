// SPDX-License-Identifier: GPL-2.0-or-later
#include "svio_client.hpp"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>

namespace svio::client {

namespace {

using Json = nlohmann::ordered_json;

/// An answer is at most what all VIFs and counters need, many times over.
constexpr size_t answer_max = size_t{16} << 20;

std::string errno_text() {
    return std::generic_category().message(errno);
}

Json request_for(const char *operation) {
    return {{"op", operation}};
}

Json request_for(const char *operation, const Target &target) {
    Json request = request_for(operation);
    if (target.slot)
        request["slot"] = *target.slot;
    else if (target.id)
        request["id"] = *target.id;
    else
        request["name"] = target.name.value_or("");
    return request;
}

/// A number; the largest one is a word.
Json json_or(const char *word, uint32_t value) {
    return value == UINT32_MAX ? Json(word) : Json(value);
}
static_assert(core_auto == UINT32_MAX && neighbours_none == UINT32_MAX);

Json settings_json(const Settings &settings) {
    Json json = Json::object();
    auto put = [&json](const char *key, const auto &value) {
        if (value)
            json[key] = *value;
    };
    put("mac", settings.mac);
    put("vlan", settings.vlan);
    put("priority", settings.priority);
    put("trust", settings.trust);
    put("spoof_check", settings.spoof_check);
    put("allow_promisc", settings.allow_promisc);
    put("allow_multicast", settings.allow_multicast);
    put("guest_tagging", settings.guest_tagging);
    put("link", settings.link);
    put("queue_pairs", settings.queue_pairs);
    put("queue_size", settings.queue_size);
    put("min_mbps", settings.min_mbps);
    put("max_mbps", settings.max_mbps);
    put("weight", settings.weight);
    put("name", settings.name);
    if (settings.neighbours)
        json["neighbours"] = json_or("none", *settings.neighbours);
    if (settings.core)
        json["core"] = json_or("auto", *settings.core);
    if (const auto &limit = settings.qos_limit)
        json["qos_limit"] = {
            {"min_mbps", limit->min_mbps}, {"max_mbps", limit->max_mbps}, {"weight", limit->weight}};
    return json;
}

Vif vif_from(const Json &json) {
    Vif vif;
    json.at("id").get_to(vif.id);
    if (!json.at("slot").is_null())
        vif.slot = json.at("slot").get<uint32_t>();
    json.at("name").get_to(vif.name);
    json.at("mac").get_to(vif.mac);
    json.at("permanent_mac").get_to(vif.permanent_mac);
    json.at("vlan").get_to(vif.vlan);
    json.at("priority").get_to(vif.priority);
    json.at("trust").get_to(vif.trust);
    json.at("spoof_check").get_to(vif.spoof_check);
    json.at("allow_promisc").get_to(vif.allow_promisc);
    json.at("allow_multicast").get_to(vif.allow_multicast);
    json.at("guest_tagging").get_to(vif.guest_tagging);
    json.at("link").get_to(vif.link);
    json.at("link_up").get_to(vif.link_up);
    json.at("running").get_to(vif.running);
    json.at("queue_pairs").get_to(vif.queue_pairs);
    json.at("queue_size").get_to(vif.queue_size);
    json.at("min_mbps").get_to(vif.min_mbps);
    json.at("max_mbps").get_to(vif.max_mbps);
    json.at("weight").get_to(vif.weight);
    const Json &limit = json.at("qos_limit");
    limit.at("min_mbps").get_to(vif.qos_limit.min_mbps);
    limit.at("max_mbps").get_to(vif.qos_limit.max_mbps);
    limit.at("weight").get_to(vif.qos_limit.weight);
    if (json.at("core").is_number())
        vif.core = json.at("core").get<uint32_t>();
    json.at("serving_cores").get_to(vif.serving_cores);
    if (auto at = json.find("neighbours"); at != json.end()) // a device may be older
        vif.neighbours = at->is_number() ? at->get<uint32_t>() : neighbours_none;
    json.at("automatic").get_to(vif.automatic);
    if (auto vm = json.find("vm"); vm != json.end() && !vm->is_null()) {
        vif.vm = vm->at("name").get<std::string>();
        if (!vm->at("pid").is_null())
            vif.pid = vm->at("pid").get<int>();
    }
    return vif;
}

Counters counters_from(const Json &json) {
    Counters counters;
    for (const auto &[name, value] : json.items())
        counters.emplace_back(name, value.get<uint64_t>());
    return counters;
}

/// Has it answered, and what of it is wanted, whatever a device says that is newer, older, or no device.
template <typename Read> auto ask(Client &client, const Json &request, Read read) {
    // What comes from the command line may be no UTF-8; the device refuses what it then gets.
    Json answer = Json::parse(client.request(request.dump(-1, ' ', false, Json::error_handler_t::replace)),
                              nullptr, false);
    try {
        std::string status = answer.at("status");
        if (status != "OK" && status != "TRIMMED")
            throw Refused(status, answer.at("error"));
        return read(answer);
    } catch (const Json::exception &) {
        throw Error("the device gave an answer that is not understood");
    }
}

Vif ask_for_vif(Client &client, const Json &request) {
    return ask(client, request, [](const Json &answer) { return vif_from(answer.at("vif")); });
}

void ask_for_nothing(Client &client, const Json &request) {
    ask(client, request, [](const Json &) { return 0; });
}

} // namespace

// ---- the socket ----

Client::Client(const std::string &path, std::chrono::milliseconds patience) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path))
        throw Error("the path of a management socket has 1 to " +
                    std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    std::memcpy(address.sun_path, path.data(), path.size());
    fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto whole = patience.count();
    timeval time{static_cast<time_t>(whole / 1000), static_cast<suseconds_t>(whole % 1000 * 1000)};
    if (fd_ < 0 || setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)) < 0 ||
        setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)) < 0 ||
        connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) < 0) {
        std::string why = errno_text();
        if (fd_ >= 0)
            close(fd_);
        throw Error("cannot connect to " + path + ": " + why);
    }
}

Client::~Client() {
    close(fd_);
}

std::string Client::request(const std::string &line) {
    std::string text = line + "\n";
    for (size_t sent = 0; sent < text.size();) {
        ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            break; // it may have said why
        if (n < 0)
            throw Error("the device does not take the request: " + errno_text());
        sent += static_cast<size_t>(n);
    }
    for (;;) {
        size_t end = rest_.find('\n');
        if (end != std::string::npos) {
            last_ = rest_.substr(0, end);
            rest_.erase(0, end + 1);
            return last_;
        }
        char buffer[16384];
        ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            throw Error("the device does not answer");
        if (n <= 0 || rest_.size() > answer_max)
            throw Error("the device has closed the connection");
        rest_.append(buffer, static_cast<size_t>(n));
    }
}

// ---- requests ----

std::vector<Vif> Client::list() {
    return ask(*this, request_for("vif-list"), [](const Json &answer) {
        std::vector<Vif> vifs;
        for (const Json &vif : answer.at("vifs"))
            vifs.push_back(vif_from(vif));
        return vifs;
    });
}

Vif Client::show(const Target &target) {
    return ask_for_vif(*this, request_for("vif-show", target));
}

Vif Client::create(std::optional<uint32_t> slot, const Settings &settings) {
    Json request = request_for("vif-create");
    if (slot)
        request["slot"] = *slot;
    request["set"] = settings_json(settings);
    return ask_for_vif(*this, request);
}

void Client::destroy(const Target &target) {
    ask_for_nothing(*this, request_for("vif-destroy", target));
}

Vif Client::set(const Target &target, const Settings &settings) {
    Json request = request_for("vif-set", target);
    request["set"] = settings_json(settings);
    return ask_for_vif(*this, request);
}

Vif Client::bind(const Target &target, uint32_t slot) {
    Json request = request_for("vif-bind", target);
    request["slot"] = slot;
    return ask_for_vif(*this, request);
}

void Client::unbind(const Target &target) {
    ask_for_nothing(*this, request_for("vif-unbind", target));
}

Stats Client::stats(const Target &target) {
    return ask(*this, request_for("vif-stats", target), [](const Json &answer) {
        Stats stats;
        answer.at("id").get_to(stats.id);
        answer.at("slot").get_to(stats.slot);
        stats.counters = counters_from(answer.at("counters"));
        for (const Json &pair : answer.at("queues"))
            stats.queues.push_back({counters_from(pair.at("send")), counters_from(pair.at("receive"))});
        return stats;
    });
}

Counters Client::port_stats() {
    return ask(*this, request_for("port-stats"),
               [](const Json &answer) { return counters_from(answer.at("counters")); });
}

std::vector<Core> Client::cores() {
    return ask(*this, request_for("core-list"), [](const Json &answer) {
        std::vector<Core> cores;
        for (const Json &json : answer.at("cores")) {
            Core core;
            json.at("core").get_to(core.core);
            json.at("queues").get_to(core.queues);
            json.at("polls").get_to(core.polls);
            json.at("empty_polls").get_to(core.empty_polls);
            json.at("sleeps").get_to(core.sleeps);
            json.at("busy_ns").get_to(core.busy_ns);
            cores.push_back(core);
        }
        return cores;
    });
}

Vif Client::map_core(const Target &target, uint32_t core) {
    Json request = request_for("core-map", target);
    request["core"] = json_or("auto", core);
    return ask_for_vif(*this, request);
}

} // namespace svio::client
