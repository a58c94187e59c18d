// SPDX-License-Identifier: GPL-2.0-or-later
// svio-wire-peer: the host at the other end of one or several wires.
//
// It blocks in epoll_wait() and answers what comes, as an ordinary host would; it does not spin. Several
// wires are served by one thread, so that NICs which are compared meet the very same peer.
#include "wire.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <getopt.h>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <vector>

namespace svio::wire_peer {

namespace {

constexpr std::size_t kWiresMax = 64;
constexpr std::size_t kLineMax = 4096;
// Of epoll's words: the wire's other descriptors.
constexpr std::size_t kWritable = 1u << 31;
constexpr std::size_t kTap = 1u << 30;

constexpr std::string_view kInterface = "if:"; // begins the name of an interface in a wire

const char kHelp[] =
    R"(Usage: svio-wire-peer --wire NAME,LOCAL,REMOTE,IP[/BITS][,TAP] [--wire ...] [--no-control]

The host at the other end of a wire. A wire is a pair of unix datagram sockets on which each datagram is one
Ethernet frame: this program binds LOCAL and sends to REMOTE, the NIC does the reverse:
    -netdev dgram,id=n0,local.type=unix,local.path=REMOTE,remote.type=unix,remote.path=LOCAL
    -device svio-nic,port=dgram:REMOTE,,LOCAL
A wire can be a network interface, too: this program gets what comes from it and sends into it, as packet(7)
tells, so that it is at the kernel's end of a TAP interface that QEMU has opened:
    -netdev tap,id=n0,ifname=INTERFACE,script=no,downscript=no
On each wire it is the host IP and answers ARP, ICMP echo and UDP:
    port 7      echo
    port 9      discard: datagrams are counted, with the times of the first and the last
    port 11111  what sockperf's server answers (ping-pong; one-way messages are counted like port 9)
Malformed frames are counted and otherwise ignored.

  --wire NAME,LOCAL,REMOTE,IP   a wire; NAME is for the counters; may be given up to 64 times. With IP/BITS
                                the host has all addresses that begin with the same BITS bits. With a TAP
                                interface at the end what this host does not answer (TCP, say) goes to the
                                kernel behind it, which has to have this host's MAC, 02:73:76:69:6f:NN
                                (NN: the number of the wire, from 01 on), and address
  --wire NAME,if:INTERFACE,IP   a wire that is an interface; its kernel must not answer ARP there (ip link set dev
                                INTERFACE arp off). Needs CAP_NET_RAW
  --no-control                  do not read commands from standard input; run until SIGTERM or SIGINT
  --help                        this text

Commands come on standard input, one in a line; each is answered with one line of JSON. Its end ends the program.
    counters    counters of each wire and the CPU time of this process
    reset       set the counters to zero
    flood NAME MAC IP BYTES [RATE]
                send datagrams of BYTES bytes to port 9 of this host on the wire NAME, RATE in a second
                or as many as the wire takes. Hosts on the same wire can be flooded at once, and take turns
    flood NAME off
                end that, to all of them
    quit        end
)";

struct Options {
    std::vector<WireOptions> wires;
    bool control = true;
};

bool good_name(const std::string &name) {
    return !name.empty() &&
           name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
               std::string::npos;
}

bool parse_ip(const std::string &text, Ipv4 &ip) {
    return inet_pton(AF_INET, text.c_str(), ip.data()) == 1;
}

std::optional<std::uint64_t> parse_number(const std::string &text) {
    std::uint64_t value = 0;
    const auto end = text.data() + text.size();
    const auto found = std::from_chars(text.data(), end, value);
    return found.ec == std::errc{} && found.ptr == end ? std::optional(value) : std::nullopt;
}

bool parse_mac(const std::string &text, Mac &mac) {
    int used = -1;
    std::sscanf(text.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3],
                &mac[4], &mac[5], &used);
    return used == static_cast<int>(text.size());
}

WireOptions parse_wire(const std::string &text, std::size_t index) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        parts.push_back(part);
    }
    const bool interface = parts.size() > 1 && parts[1].starts_with(kInterface);
    if (interface) {
        parts.insert(parts.begin() + 2, "");
    }
    if (parts.size() < 4 || parts.size() > 5 || !good_name(parts[0]) || text.back() == ',') {
        throw std::runtime_error(
            "--wire wants NAME,LOCAL,REMOTE,IP[,TAP] or NAME,if:INTERFACE,IP[,TAP], not \"" + text + "\"");
    }
    parts.resize(5);
    WireOptions wire{.name = parts[0],
                     .local = parts[1],
                     .remote = parts[2],
                     .interface = interface ? parts[1].substr(kInterface.size()) : "",
                     .tap = parts[4]};
    const auto slash = parts[3].find('/');
    const auto bits = slash == std::string::npos ? 32 : parse_number(parts[3].substr(slash + 1));
    if (!parse_ip(parts[3].substr(0, slash), wire.ip.address) || !bits || *bits > 32) {
        throw std::runtime_error("\"" + parts[3] + "\" is not an IPv4 address");
    }
    wire.ip.bits = static_cast<unsigned>(*bits);
    if (wire.local == wire.remote) {
        throw std::runtime_error("the two ends of wire " + wire.name + " are the same socket");
    }
    wire.mac = {0x02, 0x73, 0x76, 0x69, 0x6f, static_cast<std::uint8_t>(index + 1)}; // locally administered
    return wire;
}

void check_wires(const std::vector<WireOptions> &wires) {
    if (wires.empty() || wires.size() > kWiresMax) {
        throw std::runtime_error("1 to 64 wires are needed (--wire NAME,LOCAL,REMOTE,IP)");
    }
    for (std::size_t i = 0; i < wires.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (wires[i].name == wires[j].name || wires[i].local == wires[j].local) {
                throw std::runtime_error("two wires have the same name or socket: " + wires[i].name);
            }
        }
    }
}

// Nothing when the help was asked for.
std::unique_ptr<Options> parse(int argc, char **argv) {
    static const option kLong[] = {{"wire", required_argument, nullptr, 'w'},
                                   {"no-control", no_argument, nullptr, 'n'},
                                   {"help", no_argument, nullptr, 'h'},
                                   {nullptr, 0, nullptr, 0}};
    auto options = std::make_unique<Options>();
    opterr = 0;
    for (int found; (found = getopt_long(argc, argv, "h", kLong, nullptr)) != -1;) {
        switch (found) {
        case 'w':
            options->wires.push_back(parse_wire(optarg, options->wires.size()));
            break;
        case 'n':
            options->control = false;
            break;
        case 'h':
            return nullptr;
        default:
            throw std::runtime_error("unknown or incomplete option " + std::string(argv[optind - 1]) +
                                     ", see --help");
        }
    }
    if (optind < argc) {
        throw std::runtime_error("unexpected argument " + std::string(argv[optind]) + ", see --help");
    }
    check_wires(options->wires);
    return options;
}

void print(std::ostream &out, const Counters &counters) {
    const auto &sink = counters.sink;
    out << "{\"received\": " << counters.received << ", \"received_bytes\": " << counters.received_bytes
        << ", \"sent\": " << counters.sent << ", \"send_full\": " << counters.send_full
        << ", \"send_no_peer\": " << counters.send_no_peer << ", \"send_errors\": " << counters.send_errors
        << ", \"receive_errors\": " << counters.receive_errors << ", \"malformed\": " << counters.malformed
        << ", \"bad_checksum\": " << counters.bad_checksum << ", \"ignored\": " << counters.ignored
        << ", \"arp\": " << counters.arp << ", \"icmp_echo\": " << counters.icmp_echo
        << ", \"udp_echo\": " << counters.udp_echo << ", \"udp_warmup\": " << counters.udp_warmup
        << ", \"tap_in\": " << counters.tap_in << ", \"tap_out\": " << counters.tap_out
        << ", \"tap_refused\": " << counters.tap_refused << ", \"flood_sent\": " << counters.flood_sent
        << ", \"flood_missed\": " << counters.flood_missed << ", \"sink\": {\"datagrams\": " << sink.datagrams
        << ", \"bytes\": " << sink.bytes << ", \"first_ns\": " << sink.first_ns
        << ", \"last_ns\": " << sink.last_ns << ", \"longest_gap_ns\": " << sink.longest_gap_ns
        << ", \"warmup\": " << sink.warmup << "}}";
}

double cpu_seconds() noexcept {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

class Program {
  public:
    explicit Program(const Options &options);
    ~Program() {
        close(signals_);
        close(timer_);
        close(epoll_);
    }
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    void run();

  private:
    // False: not a descriptor to wait for, but a file.
    bool watch(int fd, std::size_t what, std::uint32_t events = EPOLLIN);
    // What is ready; false ends the program.
    bool handle(std::size_t what);
    void watch_while(bool wanted, std::vector<bool>::reference watched, int fd, std::size_t what,
                     std::uint32_t events);
    void watch_more(std::size_t index);
    void set_timer();
    void tick();
    // False ends the program.
    bool read_commands();
    bool obey(const std::string &command);
    void counters() const;
    std::string flood(const std::string &command);

    std::vector<std::unique_ptr<Wire>> wires_;
    std::vector<bool> room_watched_;
    std::vector<bool> tap_watched_;
    std::string pending_;
    bool control_;
    int signals_ = -1;
    int timer_ = -1;
    int epoll_ = -1;
};

Program::Program(const Options &options)
    : room_watched_(options.wires.size()), tap_watched_(options.wires.size()), control_(options.control) {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    signals_ = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (signals_ < 0 || timer_ < 0 || epoll_ < 0) {
        throw std::runtime_error("no signalfd, timerfd or epoll descriptor");
    }
    for (const auto &wire : options.wires) {
        wires_.push_back(std::make_unique<Wire>(wire));
    }
}

bool Program::watch(int fd, std::size_t what, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = what;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0) {
        return true;
    }
    if (errno != EPERM) {
        throw std::runtime_error("epoll_ctl failed");
    }
    return false;
}

void Program::run() {
    // Not poll(): it would look at every wire for each message.
    const std::size_t end = wires_.size();
    for (std::size_t i = 0; i < wires_.size(); ++i) {
        watch(wires_[i]->fd(), i);
        watch_more(i);
    }
    watch(signals_, end);
    watch(timer_, end + 1);
    std::cout << "{\"ready\": true, \"wires\": " << wires_.size() << "}" << std::endl;
    if (control_ && !watch(STDIN_FILENO, end + 2)) {
        while (read_commands()) {
        }
        return;
    }
    std::array<epoll_event, 8> ready;
    for (;;) {
        const int count = epoll_wait(epoll_, ready.data(), ready.size(), -1);
        if (count < 0 && errno != EINTR) {
            throw std::runtime_error("epoll_wait failed");
        }
        for (int i = 0; i < count; ++i) {
            if (!handle(ready[static_cast<std::size_t>(i)].data.u64)) {
                return;
            }
        }
    }
}

bool Program::handle(std::size_t what) {
    const auto end = wires_.size(), index = what & ~(kWritable | kTap);
    if (index < end) {
        if (what & kTap) {
            wires_[index]->serve_tap();
        } else {
            what &kWritable ? wires_[index]->writable() : wires_[index]->serve();
        }
        watch_more(index);
        return true;
    }
    if (what == end + 1) {
        tick();
        return true;
    }
    return what != end && read_commands();
}

void Program::watch_while(bool wanted, std::vector<bool>::reference watched, int fd, std::size_t what,
                          std::uint32_t events) {
    if (wanted == watched) {
        return;
    }
    if (wanted) {
        watch(fd, what, events);
    } else {
        epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    }
    watched = wanted;
}

// The descriptor of a wire that waits for nothing is writable all the time. What the kernel behind a TAP
// sends waits in its own queue, where TCP sees that the wire is full.
void Program::watch_more(std::size_t index) {
    const auto &wire = *wires_[index];
    watch_while(wire.waits(), room_watched_[index], wire.send_fd(), index | kWritable, EPOLLOUT);
    watch_while(wire.takes_from_tap(), tap_watched_[index], wire.tap_fd(), index | kTap, EPOLLIN);
}

void Program::set_timer() {
    std::uint64_t shortest = 0;
    for (const auto &wire : wires_) {
        shortest = shorter(shortest, wire->tick_ns());
    }
    itimerspec when{};
    when.it_interval.tv_nsec = static_cast<long>(shortest); // below a second
    when.it_value = when.it_interval;
    timerfd_settime(timer_, 0, &when, nullptr);
}

void Program::tick() {
    std::uint64_t times;
    if (read(timer_, &times, sizeof times) != sizeof times) {
        return;
    }
    bool ended = false;
    for (const auto &wire : wires_) {
        const auto before = wire->tick_ns();
        wire->tick();
        ended |= wire->tick_ns() != before;
    }
    if (ended) {
        set_timer();
    }
}

bool Program::read_commands() {
    char bytes[512];
    const auto count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count <= 0) {
        return count < 0 && (errno == EINTR || errno == EAGAIN);
    }
    pending_.append(bytes, static_cast<std::size_t>(count));
    for (std::size_t end; (end = pending_.find('\n')) != std::string::npos;) {
        const auto command = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        if (!obey(command)) {
            return false;
        }
    }
    if (pending_.size() > kLineMax) {
        pending_.clear();
    }
    return true;
}

bool Program::obey(const std::string &command) {
    if (command == "counters") {
        counters();
        return static_cast<bool>(std::cout);
    }
    std::string error;
    if (command == "reset") {
        for (const auto &wire : wires_) {
            wire->reset_counters();
        }
    } else if (command.starts_with("flood ")) {
        error = flood(command);
    } else if (command != "quit") {
        error = "unknown command: use counters, reset, flood or quit";
    }
    std::cout << (error.empty() ? "{\"ok\": true}" : "{\"error\": \"" + error + "\"}") << std::endl;
    return command != "quit" && std::cout;
}

void Program::counters() const {
    std::cout << "{\"wires\": {";
    const char *separator = "";
    for (const auto &wire : wires_) {
        std::cout << separator << "\"" << wire->name() << "\": ";
        print(std::cout, wire->counters());
        separator = ", ";
    }
    std::cout << "}, \"now_ns\": " << monotonic_ns() << ", \"cpu_s\": " << std::fixed << cpu_seconds() << "}"
              << std::endl;
}

// An error, or nothing when it was done.
std::string Program::flood(const std::string &command) {
    std::istringstream stream(command);
    std::vector<std::string> words{std::istream_iterator<std::string>(stream), {}};
    words.resize(std::max<std::size_t>(words.size(), 3));
    const auto named = [&](const auto &wire) { return wire->name() == words[1]; };
    const auto found = std::find_if(wires_.begin(), wires_.end(), named);
    if (words.size() > 6 || found == wires_.end()) {
        return "flood wants NAME MAC IP BYTES [RATE], or NAME off, and the name of a wire";
    }
    if (words.size() == 3 && words[2] == "off") {
        (*found)->stop_floods();
    } else {
        FloodOptions options;
        const auto payload = words.size() > 4 ? parse_number(words[4]) : std::nullopt;
        const auto rate = words.size() > 5 ? parse_number(words[5]) : std::optional<std::uint64_t>(0);
        if (!payload || *payload < kFloodPayloadMin || *payload > kFloodPayloadMax || !rate ||
            *rate > kFloodRateMax || !parse_mac(words[2], options.mac) || !parse_ip(words[3], options.ip)) {
            return "flood: a MAC, an IPv4 address, 8 to 8972 bytes, at most 10000000 in a second";
        }
        options.payload = *payload;
        options.rate = *rate;
        if (!(*found)->start_flood(options)) {
            return "flood: a wire has at most 64";
        }
    }
    set_timer();
    watch_more(static_cast<std::size_t>(found - wires_.begin()));
    return {};
}

} // namespace

} // namespace svio::wire_peer

int main(int argc, char **argv) {
    using namespace svio::wire_peer;
    try {
        const auto options = parse(argc, argv);
        if (!options) {
            std::cout << kHelp;
            return 0;
        }
        Program(*options).run();
        return 0;
    } catch (const std::exception &error) {
        std::cerr << "svio-wire-peer: " << error.what() << std::endl;
        return 1;
    }
}
