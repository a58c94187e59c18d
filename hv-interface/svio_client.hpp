// SPDX-License-Identifier: GPL-2.0-or-later
/// Management of an svio device through its socket (SPEC.md chapter 8), for programs of the hypervisor.
///
///     svio::client::Client client("/run/vm1/svio.sock");
///     auto vif = client.create(3, {.mac = "52:54:00:00:00:03", .max_mbps = 1000});
///
/// Each call is one request and waits for its answer. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace svio::client {

/// There is no device at the socket, it went away, or what it says is not understood.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// The device has refused, and changed nothing. `status` is one of SPEC.md chapter 7, as "DENIED".
class Refused : public std::runtime_error {
  public:
    Refused(std::string name, const std::string &why) : std::runtime_error(why), status(std::move(name)) {}
    const std::string status;
};

inline constexpr uint32_t core_auto = UINT32_MAX;
inline constexpr uint32_t neighbours_none = UINT32_MAX; ///< the port alone

struct QosLimit {
    uint32_t min_mbps = 0;
    uint32_t max_mbps = 0; ///< 0: unlimited
    uint32_t weight = 0;   ///< 0: a guest may ask for nothing
};

/// What can be set of a VIF; what is not there stays as it is.
struct Settings {
    std::optional<std::string> mac{};
    std::optional<uint32_t> vlan{}; ///< 0: none
    std::optional<uint32_t> priority{};
    std::optional<bool> trust{};
    std::optional<bool> spoof_check{};
    std::optional<bool> allow_promisc{};
    std::optional<bool> allow_multicast{};
    std::optional<bool> guest_tagging{};
    std::optional<std::string> link{}; ///< auto, up, down
    std::optional<uint32_t> queue_pairs{};
    std::optional<uint32_t> queue_size{};
    std::optional<uint32_t> min_mbps{};
    std::optional<uint32_t> max_mbps{}; ///< 0: unlimited
    std::optional<uint32_t> weight{};
    std::optional<uint32_t> core{};       ///< or core_auto
    std::optional<uint32_t> neighbours{}; ///< a group, or neighbours_none
    std::optional<std::string> name{};
    std::optional<QosLimit> qos_limit{};
};

struct Vif {
    uint64_t id = 0;
    std::optional<uint32_t> slot; ///< none: unbound
    std::string name;
    std::string mac; ///< in force
    std::string permanent_mac;
    uint32_t vlan = 0;
    uint32_t priority = 0;
    bool trust = false;
    bool spoof_check = false;
    bool allow_promisc = false;
    bool allow_multicast = false;
    bool guest_tagging = false;
    std::string link;
    bool link_up = false;
    bool running = false; ///< its driver is at work
    uint32_t queue_pairs = 0;
    uint32_t queue_size = 0;
    uint32_t min_mbps = 0;
    uint32_t max_mbps = 0;
    uint32_t weight = 0;
    QosLimit qos_limit;
    uint32_t core = core_auto;
    uint32_t neighbours = 0;
    std::vector<uint32_t> serving_cores; ///< one for each queue pair
    bool automatic = false;
    /// The machine that has it, on a board that is a process of its own; none: not said, or unbound.
    std::optional<std::string> vm{};
    std::optional<int> pid{};
};

using Counters = std::vector<std::pair<std::string, uint64_t>>;

struct Stats {
    struct Pair {
        Counters send;
        Counters receive;
    };
    uint64_t id = 0;
    uint32_t slot = 0;
    Counters counters;
    std::vector<Pair> queues;
};

struct Core {
    uint32_t core = 0;
    uint32_t queues = 0;
    uint64_t polls = 0;
    uint64_t empty_polls = 0;
    uint64_t sleeps = 0;
    uint64_t busy_ns = 0;
};

/// Which VIF is meant.
struct Target {
    static Target of_slot(uint32_t slot) { return {slot, {}, {}}; }
    static Target of_id(uint64_t id) { return {{}, id, {}}; }
    static Target of_name(std::string name) { return {{}, {}, std::move(name)}; }
    std::optional<uint32_t> slot;
    std::optional<uint64_t> id;
    std::optional<std::string> name;
};

class Client {
  public:
    /// Throws Error. `patience`: how long an answer may take.
    explicit Client(const std::string &path, std::chrono::milliseconds patience = std::chrono::seconds(10));
    ~Client();
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;

    std::vector<Vif> list();
    Vif show(const Target &target);
    /// Without a slot: unbound.
    Vif create(std::optional<uint32_t> slot, const Settings &settings);
    void destroy(const Target &target);
    Vif set(const Target &target, const Settings &settings);
    Vif bind(const Target &target, uint32_t slot); ///< a target by ID or name
    void unbind(const Target &target);
    Stats stats(const Target &target);
    Counters port_stats();
    std::vector<Core> cores();
    Vif map_core(const Target &target, uint32_t core);

    /// A line of JSON, and the line that answers it, whatever its status.
    std::string request(const std::string &line);
    /// The answer to the last request, as it came.
    const std::string &last_answer() const { return last_; }

  private:
    int fd_ = -1;
    std::string rest_; ///< read, after the last answer
    std::string last_;
};

} // namespace svio::client
