// SPDX-License-Identifier: GPL-2.0-or-later
/// svio-board: the board as a process of its own, to which several virtual machines attach (SPEC.md chapter
/// 15).
#include "log.hpp"
#include "native_port.hpp"
#include "no_port.hpp"
#include "server.hpp"
#include "service.hpp"
#include "slirp_port.hpp"
#include "udp_port.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <glib-unix.h>
#include <map>
#include <random>
#include <syslog.h>

namespace {

struct Options {
    std::string socket;
    std::string mgmt;
    std::string port = "slirp";
    svio::LogFormat log = svio::LogFormat::Text;
    svio::Attachments::Config config;
};

void add_options(CLI::App &app, Options &options) {
    app.set_version_flag("--version", SVIO_VERSION);
    app.add_option("--socket", options.socket, "path of the socket that machines attach to")->required();
    app.add_option("--mgmt", options.mgmt, "path of the management's socket, for svioctl");
    app.add_option(
           "--port", options.port,
           "the wire: slirp[:restrict=on,hostfwd=tcp:[ADDRESS]:PORT-[GUEST]:PORT,...] (a user network, "
           "10.0.2.0/24), none (machines reach each other alone), dgram:LOCAL,REMOTE, tap:IFNAME, "
           "udp:ADDRESS:PORT,ADDRESS:PORT (own and the other board's) or "
           "echo[:IPV4] (a peer inside)")
        ->capture_default_str();
    app.add_option("--cores", options.config.board.cores, "on-board cores")
        ->check(CLI::Range(1, SVIO_MAX_CORES))
        ->capture_default_str();
    app.add_option("--poll-us", options.config.board.poll_us,
                   "longest time that a core goes on polling without work, microseconds")
        ->check(CLI::Range(0, 1000000))
        ->capture_default_str();
    app.add_option("--port-mbps", options.config.board.port_mbps,
                   "limit of what is sent to the wire, Mb/s; 0: none")
        ->capture_default_str();
    app.add_flag("--stage-times", options.config.board.stage_times,
                 "histograms of how long messages take from stage to stage, in svioctl's core list");
    app.add_option("--log-format", options.log, "of the log on standard error: text or json")
        ->transform(CLI::CheckedTransformer(std::map<std::string, svio::LogFormat>{
            {"text", svio::LogFormat::Text}, {"json", svio::LogFormat::Json}}));
    app.add_option("--slots", options.config.slots, "machines that can be attached at a time")
        ->check(CLI::Range(1, SVIO_MAX_VIFS))
        ->capture_default_str();
}

/// Locally administered, and another one for each board, as boards may share a wire.
svio::Mac random_mac() {
    std::random_device random;
    svio::Mac mac;
    for (uint8_t &byte : mac)
        byte = static_cast<uint8_t>(random());
    mac[0] = static_cast<uint8_t>((mac[0] & 0xfc) | 2);
    return mac;
}

/// A machine that comes back must not find a VIF of the same ID on a board that knows nothing of it. Fits
/// into the numbers of JSON.
uint64_t first_id() {
    auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) << 10;
}

std::unique_ptr<svio::Port> open_port(const std::string &spec) {
    if (spec == "none")
        return std::make_unique<svio::NoPort>();
    std::string why;
    std::unique_ptr<svio::Port> port;
    if (svio::SlirpPort::named(spec))
        port = svio::SlirpPort::open(spec, why);
    else if (svio::UdpPort::named(spec))
        port = svio::UdpPort::open(spec, why);
    else
        port = svio::open_native_port(spec, why);
    if (!port)
        throw std::runtime_error(why);
    return port;
}

void run(Options &options) {
    options.config.mac = random_mac();
    options.config.mgmt = options.mgmt;
    options.config.first_id = first_id();
    svio::Attachments all(options.config, open_port(options.port));
    svio::Service service;
    svio::AttachServer server(options.socket, all, service,
                              options.config.slots + svio::AttachServer::spare_connections);
    GMainLoop *loop = g_main_loop_new(nullptr, FALSE);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) {
        g_unix_signal_add(
            signal,
            [](gpointer opaque) -> gboolean {
                g_main_loop_quit(static_cast<GMainLoop *>(opaque));
                return G_SOURCE_CONTINUE;
            },
            loop);
    }
    svio::log_event(LOG_INFO, "ready",
                    "ready: " + options.socket + ", port " + options.port + ", " +
                        std::to_string(options.config.board.cores) + " cores",
                    {{"socket", options.socket},
                     {"mgmt", options.mgmt},
                     {"port", options.port},
                     {"cores", options.config.board.cores}});
    service.ready();
    g_main_loop_run(loop);
    g_main_loop_unref(loop);
    service.stopping();
    svio::log_event(LOG_INFO, "end", "ends");
}

} // namespace

int main(int argc, char **argv) {
    CLI::App app("A self-virtualizing NIC that several virtual machines share.", "svio-board");
    Options options;
    options.config.board.poll_us = 500;
    add_options(app, options);
    CLI11_PARSE(app, argc, argv);
    svio::set_log_format(options.log);
    try {
        run(options);
        return EXIT_SUCCESS;
    } catch (const std::exception &error) {
        svio::log_event(LOG_ERR, "failure", error.what());
        return EXIT_FAILURE;
    }
}
