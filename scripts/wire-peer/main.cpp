// SPDX-License-Identifier: GPL-2.0-or-later
// svio-wire-peer: the host at the other end of one or several wires.
//
// It blocks in epoll_wait() and answers what comes, as an ordinary host would; it does not spin. Several
// wires are served by one thread, so that NICs which are compared meet the very same peer.
#include "wire.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <getopt.h>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <vector>

namespace svio::wire_peer {

namespace {

constexpr std::size_t kWiresMax = 64;
constexpr std::size_t kLineMax = 4096;

const char kHelp[] =
    R"(Usage: svio-wire-peer --wire NAME,LOCAL,REMOTE,IP [--wire ...] [--no-control]

The host at the other end of a wire. A wire is a pair of unix datagram sockets on which each datagram is one
Ethernet frame: this program binds LOCAL and sends to REMOTE, the NIC does the reverse:
    -netdev dgram,id=n0,local.type=unix,local.path=REMOTE,remote.type=unix,remote.path=LOCAL
    -device svio-nic,port=dgram:REMOTE,,LOCAL
On each wire it is the host IP and answers ARP, ICMP echo and UDP:
    port 7      echo
    port 9      discard: datagrams are counted, with the times of the first and the last
    port 11111  what sockperf's server answers (ping-pong; one-way messages are counted like port 9)
Malformed frames are counted and otherwise ignored.

  --wire NAME,LOCAL,REMOTE,IP   a wire; NAME is for the counters; may be given up to 64 times
  --no-control                  do not read commands from standard input; run until SIGTERM or SIGINT
  --help                        this text

Commands come on standard input, one in a line; each is answered with one line of JSON. Its end ends the program.
    counters    counters of each wire and the CPU time of this process
    reset       set the counters to zero
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

WireOptions parse_wire(const std::string &text, std::size_t index) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        parts.push_back(part);
    }
    if (parts.size() != 4 || !good_name(parts[0])) {
        throw std::runtime_error("--wire wants NAME,LOCAL,REMOTE,IP, not \"" + text + "\"");
    }
    WireOptions wire{.name = parts[0], .local = parts[1], .remote = parts[2]};
    if (inet_pton(AF_INET, parts[3].c_str(), wire.ip.data()) != 1) {
        throw std::runtime_error("\"" + parts[3] + "\" is not an IPv4 address");
    }
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
        << ", \"sink\": {\"datagrams\": " << sink.datagrams << ", \"bytes\": " << sink.bytes
        << ", \"first_ns\": " << sink.first_ns << ", \"last_ns\": " << sink.last_ns
        << ", \"longest_gap_ns\": " << sink.longest_gap_ns << ", \"warmup\": " << sink.warmup << "}}";
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
        close(epoll_);
    }
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    void run();

  private:
    // False: not a descriptor to wait for, but a file.
    bool watch(int fd, std::size_t what);
    // False ends the program.
    bool read_commands();
    bool obey(const std::string &command);

    std::vector<std::unique_ptr<Wire>> wires_;
    std::string pending_;
    bool control_;
    int signals_ = -1;
    int epoll_ = -1;
};

Program::Program(const Options &options) : control_(options.control) {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    signals_ = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (signals_ < 0 || epoll_ < 0) {
        throw std::runtime_error("no signalfd or no epoll descriptor");
    }
    for (const auto &wire : options.wires) {
        wires_.push_back(std::make_unique<Wire>(wire));
    }
}

bool Program::watch(int fd, std::size_t what) {
    epoll_event event{};
    event.events = EPOLLIN;
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
    const std::size_t end = wires_.size(), command = end + 1;
    for (std::size_t i = 0; i < wires_.size(); ++i) {
        watch(wires_[i]->fd(), i);
    }
    watch(signals_, end);
    std::cout << "{\"ready\": true, \"wires\": " << wires_.size() << "}" << std::endl;
    if (control_ && !watch(STDIN_FILENO, command)) {
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
            const auto what = ready[static_cast<std::size_t>(i)].data.u64;
            if (what < end) {
                wires_[what]->serve();
            } else if (what == end || !read_commands()) {
                return;
            }
        }
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
    if (command == "quit") {
        std::cout << "{\"ok\": true}" << std::endl;
        return false;
    }
    if (command == "reset") {
        for (const auto &wire : wires_) {
            wire->reset_counters();
        }
        std::cout << "{\"ok\": true}" << std::endl;
    } else if (command == "counters") {
        std::cout << "{\"wires\": {";
        const char *separator = "";
        for (const auto &wire : wires_) {
            std::cout << separator << "\"" << wire->name() << "\": ";
            print(std::cout, wire->counters());
            separator = ", ";
        }
        std::cout << "}, \"cpu_s\": " << std::fixed << cpu_seconds() << "}" << std::endl;
    } else {
        std::cout << "{\"error\": \"unknown command: use counters, reset or quit\"}" << std::endl;
    }
    return static_cast<bool>(std::cout);
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
