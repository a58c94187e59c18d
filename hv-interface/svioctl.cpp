// SPDX-License-Identifier: GPL-2.0-or-later
// svioctl: management of an svio device from the command line. See svioctl.1.
#include "svio_client.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <unistd.h>

namespace {

using namespace svio::client;

enum Exit { Done = 0, WasRefused = 1, Usage = 2, NoDevice = 3 };

struct Options {
    std::string socket;
    bool json = false;
    bool all = false;
    std::string target;
    std::string core;
    std::string slot;
    double interval = 1;
    unsigned count = 0;
    // Settings as they are written.
    std::map<std::string, std::string> words;
    std::map<std::string, bool> flags;
    std::map<std::string, uint32_t> numbers;
};

const std::map<std::string, bool> on_off = {{"on", true}, {"off", false}};

// ---- what is written on the command line ----

bool is_number(const std::string &text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

uint64_t number(const std::string &text, const char *what, uint64_t max) {
    errno = 0;
    uint64_t value = is_number(text) ? strtoull(text.c_str(), nullptr, 10) : 0;
    if (!is_number(text) || errno == ERANGE || value > max)
        throw CLI::ValidationError(what, "'" + text + "' is no number from 0 to " + std::to_string(max));
    return value;
}

uint32_t number32(const std::string &text, const char *what) {
    return static_cast<uint32_t>(number(text, what, UINT32_MAX));
}

// A slot, "pf", "id:N", "name:TEXT", or any other text: a name.
Target target_from(const std::string &text) {
    if (text == "pf")
        return Target::of_slot(0);
    if (is_number(text))
        return Target::of_slot(number32(text, "VIF"));
    if (text.starts_with("id:"))
        return Target::of_id(number(text.substr(3), "VIF", UINT64_MAX));
    return Target::of_name(text.starts_with("name:") ? text.substr(5) : text);
}

/// A number, or a word for the largest one.
uint32_t number_or(const char *word, const std::string &text, const char *what) {
    return text == word ? UINT32_MAX : static_cast<uint32_t>(number(text, what, UINT32_MAX - 1));
}

uint32_t core_from(const std::string &text) {
    return number_or("auto", text, "core");
}

std::vector<std::string> split(const std::string &text) {
    std::vector<std::string> parts(1);
    for (char c : text) {
        if (c == ':')
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

Settings settings_from(const Options &options) {
    Settings settings;
    for (const auto &[name, value] : options.words) {
        if (name == "mac") {
            settings.mac = value;
        } else if (name == "link") {
            settings.link = value;
        } else if (name == "name") {
            settings.name = value;
        } else if (name == "core") {
            settings.core = core_from(value);
        } else if (name == "neighbours") {
            settings.neighbours = number_or("none", value, "neighbours");
        } else if (name == "vlan") {
            std::vector<std::string> parts = split(value);
            if (parts.size() > 2)
                throw CLI::ValidationError("--vlan", "it is VID or VID:PRIORITY");
            settings.vlan = number32(parts[0], "--vlan");
            if (parts.size() == 2)
                settings.priority = number32(parts[1], "--vlan");
            else if (*settings.vlan != 0)
                settings.priority = 0; // and not the one that it had
        } else if (name == "qos-limit") {
            std::vector<std::string> parts = split(value);
            if (parts.size() != 3)
                throw CLI::ValidationError("--qos-limit", "it is MIN:MAX:WEIGHT");
            settings.qos_limit = {number32(parts[0], "--qos-limit"), number32(parts[1], "--qos-limit"),
                                  number32(parts[2], "--qos-limit")};
        }
    }
    auto flag = [&](const char *name, std::optional<bool> &to) {
        if (auto at = options.flags.find(name); at != options.flags.end())
            to = at->second;
    };
    flag("trust", settings.trust);
    flag("spoof-check", settings.spoof_check);
    flag("promisc", settings.allow_promisc);
    flag("multicast", settings.allow_multicast);
    flag("guest-tagging", settings.guest_tagging);
    auto figure = [&](const char *name, std::optional<uint32_t> &to) {
        if (auto at = options.numbers.find(name); at != options.numbers.end())
            to = at->second;
    };
    figure("queue-pairs", settings.queue_pairs);
    figure("queue-size", settings.queue_size);
    figure("min-rate", settings.min_mbps);
    figure("max-rate", settings.max_mbps);
    figure("weight", settings.weight);
    return settings;
}

void add_settings(CLI::App *verb, Options &options) {
    auto word = [&](const char *name, const char *help, const char *type) {
        return verb
            ->add_option_function<std::string>(
                std::string("--") + name, [&options, name](const std::string &v) { options.words[name] = v; },
                help)
            ->type_name(type);
    };
    auto flag = [&](const char *name, const char *help) {
        verb->add_option_function<std::string>(
                std::string("--") + name,
                [&options, name](const std::string &v) { options.flags[name] = on_off.at(v); }, help)
            ->check(CLI::IsMember({"on", "off"}))
            ->type_name("on|off");
    };
    auto figure = [&](const char *name, const char *help, const char *type) {
        verb->add_option_function<std::string>(
                std::string("--") + name,
                [&options, name](const std::string &v) { options.numbers[name] = number32(v, name); }, help)
            ->type_name(type);
    };
    word("mac", "permanent MAC address", "MAC");
    word("vlan", "VLAN that the device tags with, 0: none", "VID[:PRIORITY]");
    word("link", "link as the port's, or forced", "auto|up|down")
        ->check(CLI::IsMember({"auto", "up", "down"}));
    word("name", "a name for people", "TEXT");
    word("core", "on-board core that serves it", "CORE|auto");
    word("neighbours", "VIFs that it may reach: those of this group, or none", "GROUP|none");
    word("qos-limit", "what the guest may ask for at most; 0:0:0: nothing", "MIN:MAX:WEIGHT");
    flag("trust", "the guest may choose its MAC and see unknown frames");
    flag("spoof-check", "drop frames from other MACs");
    flag("promisc", "the guest may be promiscuous");
    flag("multicast", "the guest may receive multicast");
    flag("guest-tagging", "the guest may use VLAN tags of its own");
    figure("queue-pairs", "queue pairs", "N");
    figure("queue-size", "entries of a queue that the driver is told", "N");
    figure("min-rate", "guaranteed rate", "MBPS");
    figure("max-rate", "largest rate, 0: unlimited", "MBPS");
    figure("weight", "share of what is contended, 1 to 1000", "N");
}

// ---- what is shown ----

std::string slot_text(const Vif &vif) {
    return vif.slot ? std::to_string(*vif.slot) : "-";
}

std::string vlan_text(const Vif &vif) {
    if (vif.vlan == 0)
        return "-";
    return std::to_string(vif.vlan) + (vif.priority ? ":" + std::to_string(vif.priority) : "");
}

std::string core_text(const Vif &vif) {
    if (vif.core != core_auto)
        return std::to_string(vif.core);
    std::string text = "auto";
    for (size_t n = 0; n < vif.serving_cores.size(); n++)
        text += (n ? "," : "(") + std::to_string(vif.serving_cores[n]);
    return vif.serving_cores.empty() ? text : text + ")";
}

std::string rate_text(uint32_t max) {
    return max == 0 ? "-" : std::to_string(max);
}

std::string vm_text(const Vif &vif) {
    return vif.vm && !vif.vm->empty() ? *vif.vm : "-";
}

std::string pid_text(const Vif &vif) {
    return vif.pid ? std::to_string(*vif.pid) : "-";
}

// Only on a board that several machines share.
bool have_machines(const std::vector<Vif> &vifs) {
    return std::any_of(vifs.begin(), vifs.end(), [](const Vif &vif) { return vif.vm.has_value(); });
}

std::string link_text(const Vif &vif) {
    return std::string(vif.link_up ? "up" : "down") + (vif.link == "auto" ? "" : "!");
}

using Rows = std::vector<std::vector<std::string>>;

// Columns as wide as their longest cell; the first row is the head.
void print_table(const Rows &rows) {
    std::vector<size_t> widths(rows.front().size());
    for (const auto &row : rows) {
        for (size_t n = 0; n < row.size(); n++)
            widths[n] = std::max(widths[n], row[n].size());
    }
    for (const auto &row : rows) {
        std::string line;
        for (size_t n = 0; n < row.size(); n++)
            line += row[n] + (n + 1 < row.size() ? std::string(widths[n] - row[n].size() + 2, ' ') : "");
        puts(line.c_str());
    }
}

void print_list(const std::vector<Vif> &vifs) {
    Rows rows = {{"SLOT", "ID", "NAME", "MAC", "VLAN", "LINK", "DRIVER", "MIN", "MAX", "WEIGHT", "CORE"}};
    bool machines = have_machines(vifs);
    if (machines)
        rows[0].insert(rows[0].end(), {"PID", "VM"});
    for (const Vif &vif : vifs) {
        rows.push_back({slot_text(vif), std::to_string(vif.id), vif.name.empty() ? "-" : vif.name, vif.mac,
                        vlan_text(vif), link_text(vif), vif.running ? "running" : "-",
                        rate_text(vif.min_mbps), rate_text(vif.max_mbps), std::to_string(vif.weight),
                        core_text(vif)});
        if (machines)
            rows.back().insert(rows.back().end(), {pid_text(vif), vm_text(vif)});
    }
    print_table(rows);
}

void print_vif(const Vif &vif) {
    auto yes = [](bool value) { return value ? "on" : "off"; };
    auto line = [](const char *name, const std::string &value) { printf("%-15s %s\n", name, value.c_str()); };
    line("slot", slot_text(vif));
    line("id", std::to_string(vif.id));
    line("name", vif.name.empty() ? "-" : vif.name);
    line("mac", vif.mac);
    line("permanent-mac", vif.permanent_mac);
    line("vlan", vlan_text(vif));
    line("trust", yes(vif.trust));
    line("spoof-check", yes(vif.spoof_check));
    line("promisc", yes(vif.allow_promisc));
    line("multicast", yes(vif.allow_multicast));
    line("guest-tagging", yes(vif.guest_tagging));
    line("link", vif.link + (vif.link_up ? ", is up" : ", is down"));
    line("driver", vif.running ? "running" : "-");
    line("queue-pairs", std::to_string(vif.queue_pairs));
    line("queue-size", std::to_string(vif.queue_size));
    line("min-rate", rate_text(vif.min_mbps));
    line("max-rate", rate_text(vif.max_mbps));
    line("weight", std::to_string(vif.weight));
    line("qos-limit", std::to_string(vif.qos_limit.min_mbps) + ":" + std::to_string(vif.qos_limit.max_mbps) +
                          ":" + std::to_string(vif.qos_limit.weight));
    line("core", core_text(vif));
    line("neighbours",
         vif.neighbours == neighbours_none ? "none" : "group " + std::to_string(vif.neighbours));
    line("automatic", vif.automatic ? "yes" : "no");
    if (vif.vm) {
        line("vm", vm_text(vif));
        line("pid", pid_text(vif));
    }
}

void print_counters(const std::string &prefix, const Counters &counters, bool all) {
    for (const auto &[name, value] : counters) {
        if (value != 0 || all)
            printf("%-36s %" PRIu64 "\n", (prefix + name).c_str(), value);
    }
}

void print_stats(const Stats &stats, bool all) {
    print_counters("", stats.counters, all);
    for (size_t n = 0; n < stats.queues.size(); n++) {
        std::string queue = "queue " + std::to_string(n);
        print_counters(queue + " send ", stats.queues[n].send, all);
        print_counters(queue + " receive ", stats.queues[n].receive, all);
    }
}

void print_cores(const std::vector<Core> &cores) {
    Rows rows = {{"CORE", "QUEUES", "POLLS", "EMPTY", "SLEEPS", "BUSY-S"}};
    for (const Core &core : cores) {
        char busy[32];
        snprintf(busy, sizeof(busy), "%.3f", static_cast<double>(core.busy_ns) / 1e9);
        rows.push_back({std::to_string(core.core), std::to_string(core.queues), std::to_string(core.polls),
                        std::to_string(core.empty_polls), std::to_string(core.sleeps), busy});
    }
    print_table(rows);
}

// ---- watch ----

struct Tally {
    uint64_t tx_frames = 0, tx_bytes = 0, rx_frames = 0, rx_bytes = 0, drops = 0;
};

Tally tally_of(const Stats &stats) {
    Tally tally;
    for (const auto &[name, value] : stats.counters) {
        if (name == "tx_frames")
            tally.tx_frames = value;
        else if (name == "tx_bytes")
            tally.tx_bytes = value;
        else if (name == "rx_frames")
            tally.rx_frames = value;
        else if (name == "rx_bytes")
            tally.rx_bytes = value;
        else if (name.starts_with("drop_"))
            tally.drops += value;
    }
    return tally;
}

std::string per_second(uint64_t now, uint64_t before, double seconds, double unit) {
    char text[32];
    // A driver that came anew has cleared its counters.
    double passed = now >= before ? static_cast<double>(now - before) : 0;
    snprintf(text, sizeof(text), "%.*f", unit == 1 ? 0 : 2, passed / seconds / unit);
    return text;
}

double now_seconds() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

volatile sig_atomic_t interrupted = 0;

// What is being printed is printed, and then it ends well.
void end_when_interrupted() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };
    for (int signal : {SIGINT, SIGTERM})
        sigaction(signal, &action, nullptr);
}

/// One line of JSON, or tables of rates, for each interval: of one VIF, or of all that are bound and the
/// cores.
class Watch {
  public:
    Watch(Client &client, const Options &options)
        : client_(client), options_(options), live_(!options.json && isatty(STDOUT_FILENO)) {}

    void run() {
        end_when_interrupted();
        for (unsigned n = 0; interrupted == 0; n++) {
            look(n > 0); // rates need two
            if (options_.count != 0 && n + (options_.json ? 1 : 0) >= options_.count)
                return;
            double whole = 0, part = modf(options_.interval, &whole);
            timespec time{static_cast<time_t>(whole), static_cast<long>(part * 1e9)};
            nanosleep(&time, nullptr);
        }
    }

  private:
    void look(bool print) {
        std::vector<Vif> vifs = options_.target.empty()
                                    ? client_.list()
                                    : std::vector<Vif>{client_.show(target_from(options_.target))};
        double now = now_seconds();
        seconds_ = std::max(now - then_, 1e-3);
        std::string json;
        Rows rows = vif_rows(vifs, json);
        Rows cores = options_.json || !options_.target.empty() ? Rows() : core_rows();
        if (live_)
            fputs("\033[H\033[2J", stdout); // from the top of an empty screen
        if (options_.json) {
            printf("[%s]\n", json.c_str());
        } else if (print) {
            print_table(rows);
            if (!cores.empty())
                print_table(cores);
        }
        fflush(stdout);
        then_ = now;
    }
    Rows vif_rows(const std::vector<Vif> &vifs, std::string &json) {
        Rows rows = {
            {"SLOT", "ID", "NAME", "TX-FRAMES/S", "TX-MBIT/S", "RX-FRAMES/S", "RX-MBIT/S", "DROPS/S"}};
        bool machines = have_machines(vifs);
        if (machines)
            rows[0].emplace_back("VM");
        std::map<uint64_t, Tally> after;
        for (const Vif &vif : vifs) {
            if (!vif.slot)
                continue;
            Tally tally;
            try {
                tally = tally_of(client_.stats(Target::of_id(vif.id)));
            } catch (const Refused &) {
                continue; // it went away meanwhile
            }
            json += (json.empty() ? "" : ",") + client_.last_answer();
            after[vif.id] = tally;
            auto last = before_.find(vif.id);
            const Tally &from = last == before_.end() ? tally : last->second;
            rows.push_back({slot_text(vif), std::to_string(vif.id), vif.name.empty() ? "-" : vif.name,
                            per_second(tally.tx_frames, from.tx_frames, seconds_, 1),
                            per_second(tally.tx_bytes, from.tx_bytes, seconds_, 125'000),
                            per_second(tally.rx_frames, from.rx_frames, seconds_, 1),
                            per_second(tally.rx_bytes, from.rx_bytes, seconds_, 125'000),
                            per_second(tally.drops, from.drops, seconds_, 1)});
            if (machines)
                rows.back().push_back(vm_text(vif));
        }
        before_ = std::move(after);
        return rows;
    }
    Rows core_rows() {
        Rows rows = {{"CORE", "QUEUES", "LOAD-%", "SLEEPS/S"}};
        std::vector<Core> after = client_.cores();
        for (size_t n = 0; n < after.size(); n++) {
            const Core &core = after[n], &from = n < cores_.size() ? cores_[n] : core;
            rows.push_back({"core" + std::to_string(core.core), std::to_string(core.queues),
                            per_second(core.busy_ns, from.busy_ns, seconds_, 1e7),
                            per_second(core.sleeps, from.sleeps, seconds_, 1)});
        }
        cores_ = std::move(after);
        return rows;
    }

    Client &client_;
    const Options &options_;
    const bool live_;
    std::map<uint64_t, Tally> before_; // by ID: what is in a slot may be another VIF the next time
    std::vector<Core> cores_;
    double then_ = now_seconds();
    double seconds_ = 1;
};

// ---- verbs ----

/// The verbs of the command line; the one that was given leaves its work here.
class Verbs {
  public:
    using Work = std::function<void(Client &)>;

    Verbs(CLI::App &app, Options &options) : o_(options) {
        app.require_subcommand(1);
        CLI::App *vif = app.add_subcommand("vif", "virtual interfaces");
        vif->require_subcommand(1);
        add_vif_verbs(vif);
        add_watch(&app);
        CLI::App *port = app.add_subcommand("port", "the wire");
        port->require_subcommand(1);
        add(port, "stats", "what the port counts", [this](Client &client) {
            Counters counters = client.port_stats();
            show(client, [&] { print_counters("", counters, true); });
        });
        CLI::App *core = app.add_subcommand("core", "on-board cores");
        core->require_subcommand(1);
        add(core, "list", "all cores", [this](Client &client) {
            std::vector<Core> cores = client.cores();
            show(client, [&] { print_cores(cores); });
        });
        CLI::App *map = add_for_vif(core, "map", "have a core serve a VIF", [this](Client &client) {
            show_vif(client, client.map_core(target_from(o_.target), core_from(o_.core)));
        });
        map->add_option("CORE", o_.core, "a core, or auto")->required();
    }
    const Work &chosen() const { return chosen_; }

  private:
    CLI::App *add(CLI::App *to, const char *name, const char *help, Work work) {
        CLI::App *verb = to->add_subcommand(name, help);
        verb->callback([this, work = std::move(work)] { chosen_ = work; });
        verb->add_flag("--json", o_.json, "print the device's answer as it is");
        verb->add_option("-s,--socket", o_.socket, "the device's management socket (else SVIO_SOCKET)")
            ->type_name("PATH");
        return verb;
    }
    CLI::App *add_for_vif(CLI::App *to, const char *name, const char *help, Work work) {
        CLI::App *verb = add(to, name, help, std::move(work));
        verb->add_option("VIF", o_.target, "a slot, pf, id:N, name:TEXT, or a name")->required();
        return verb;
    }
    void add_vif_verbs(CLI::App *vif) {
        add(vif, "list", "all VIFs", [this](Client &client) {
            std::vector<Vif> vifs = client.list();
            show(client, [&] { print_list(vifs); });
        });
        add_for_vif(vif, "show", "one VIF",
                    [this](Client &client) { show_vif(client, client.show(target_from(o_.target))); });
        CLI::App *create = add(vif, "create", "make a VIF, in a slot or unbound", [this](Client &client) {
            std::optional<uint32_t> slot;
            if (!o_.slot.empty())
                slot = number32(o_.slot, "--slot");
            show_vif(client, client.create(slot, settings_from(o_)));
        });
        create->add_option("--slot", o_.slot, "where; without: unbound")->type_name("N");
        add_settings(create, o_);
        add_for_vif(vif, "destroy", "remove a VIF", [this](Client &client) {
            client.destroy(target_from(o_.target));
            show(client, [] {});
        });
        CLI::App *set = add_for_vif(vif, "set", "change a VIF", [this](Client &client) {
            show_vif(client, client.set(target_from(o_.target), settings_from(o_)));
        });
        add_settings(set, o_);
        CLI::App *bind = add_for_vif(vif, "bind", "put an unbound VIF into a slot", [this](Client &client) {
            show_vif(client, client.bind(target_from(o_.target), number32(o_.slot, "SLOT")));
        });
        bind->add_option("SLOT", o_.slot, "where to")->required();
        add_for_vif(vif, "unbind", "take a VIF out of its slot", [this](Client &client) {
            client.unbind(target_from(o_.target));
            show(client, [] {});
        });
        CLI::App *stats = add_for_vif(vif, "stats", "counters of a VIF", [this](Client &client) {
            Stats result = client.stats(target_from(o_.target));
            show(client, [&] { print_stats(result, o_.all); });
        });
        stats->add_flag("-a,--all", o_.all, "also those that are zero");
        add_watch(vif);
    }
    void add_watch(CLI::App *to) {
        CLI::App *watching =
            add(to, "watch", "rates, over and over", [this](Client &client) { Watch(client, o_).run(); });
        watching->add_option("VIF", o_.target, "one VIF; without: all, and the cores");
        watching->add_option("-i,--interval", o_.interval, "seconds between looks")
            ->type_name("SECONDS")
            ->check(CLI::Range(0.01, 86400.0));
        watching->add_option("-n,--count", o_.count, "end after so many")->type_name("N");
    }
    /// What the device answered, for --json, or else what `print` prints.
    template <typename Print> void show(const Client &client, Print print) const {
        if (o_.json)
            puts(client.last_answer().c_str());
        else
            print();
    }
    void show_vif(const Client &client, const Vif &vif) const {
        show(client, [&] { print_vif(vif); });
    }

    Options &o_;
    Work chosen_;
};

int run(const Options &options, const Verbs::Work &work) {
    std::string path = options.socket;
    if (path.empty()) {
        const char *given = getenv("SVIO_SOCKET"); // NOLINT(concurrency-mt-unsafe): one thread
        path = given ? given : "";
    }
    if (path.empty()) {
        fputs("svioctl: say which device: --socket PATH, or SVIO_SOCKET; PATH is what its property mgmt= "
              "says\n",
              stderr);
        return Usage;
    }
    try {
        Client client(path);
        work(client);
        if (fflush(stdout) != 0) {
            perror("svioctl: standard output");
            return NoDevice;
        }
        return Done;
    } catch (const Refused &refused) {
        fprintf(stderr, "svioctl: %s: %s\n", refused.status.c_str(), refused.what());
        return WasRefused;
    } catch (const Error &error) {
        fprintf(stderr, "svioctl: %s\n", error.what());
        return NoDevice;
    }
}

} // namespace

int main(int argc, char **argv) {
    Options options;
    CLI::App app("Management of an svio device: its virtual interfaces and on-board cores.", "svioctl");
    app.add_option("-s,--socket", options.socket, "the device's management socket (else SVIO_SOCKET)")
        ->type_name("PATH");
    app.add_flag("--json", options.json, "print the device's answer as it is");
    app.set_version_flag("--version", SVIO_VERSION);
    Verbs verbs(app, options);
    try {
        app.parse(argc, argv);
        return run(options, verbs.chosen());
    } catch (const CLI::ParseError &error) {
        // Of the command line alone: 0 for --help, else wrong usage.
        return app.exit(error) == 0 ? Done : Usage;
    }
}
