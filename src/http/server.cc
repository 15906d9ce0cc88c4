#include "http/server.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/thread_start.h"
#include "http/connection.h"

namespace fathom::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCondition = boost::system::error_code;

// Connections above the limit that are told so; more than these are just closed.
constexpr int kRefusedAtOnce = 128;
constexpr std::chrono::milliseconds kAcceptPause{50};

std::string describe(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(endpoint.port());
}

Result<tcp::endpoint> resolve(asio::io_context& io, std::string host, uint16_t port) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  ErrorCondition ec;
  const asio::ip::address address = asio::ip::make_address(host, ec);
  if (!ec) return tcp::endpoint(address, port);
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return error(
        ErrorCode::kInvalidArgument,
        "cannot listen on \"{}\": not an address of this machine ({}); use 127.0.0.1 for this machine only, "
        "0.0.0.0 for every network, or :: for every network with IPv6",
        host, ec.message());
  }
  return found.begin()->endpoint();
}

Error listen_error(const tcp::endpoint& endpoint, const ErrorCondition& ec) {
  const std::string where = describe(endpoint);
  if (ec == asio::error::address_in_use) {
    return error(ErrorCode::kUnavailable,
                 "cannot listen on {}: port {} is in use by another program (see `ss -ltnp`); stop it or "
                 "choose another "
                 "port",
                 where, endpoint.port());
  }
  if (ec == asio::error::access_denied) {
    return error(ErrorCode::kInvalidArgument,
                 "cannot listen on {}: ports below 1024 need privileges; choose a higher port", where);
  }
  return error(ErrorCode::kInvalidArgument, "cannot listen on {}: {}", where, ec.message());
}

Result<tcp::acceptor> listen(asio::io_context& io, const tcp::endpoint& endpoint) {
  tcp::acceptor acceptor(io);
  ErrorCondition ec;
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return listen_error(endpoint, ec);
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return listen_error(endpoint, ec);
  return acceptor;
}

void raise_open_files_limit(int connections) {
  rlimit limit{};
  const rlim_t wanted = static_cast<rlim_t>(connections) + kRefusedAtOnce + 256;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void set_socket_options(tcp::socket& socket, const ServerOptions& options) {
  ErrorCondition ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const auto set = [&](int name, int value) {
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, name, &value, sizeof(value));
  };
  // A machine that has gone without a word: found within a minute when quiet, within the write timeout when
  // not.
  set(TCP_KEEPIDLE, 30);
  set(TCP_KEEPINTVL, 10);
  set(TCP_KEEPCNT, 3);
  set(TCP_USER_TIMEOUT, static_cast<int>(std::max<int64_t>(options.write_timeout.count(), 10'000)));
}

}  // namespace

class Server::State {
 public:
  State(ServerOptions options, Handler handler) : context_(std::move(options), std::move(handler)) {
    for (int i = 0; i < std::max(context_.options.io_threads, 1); ++i)
      lanes_.push_back(std::make_unique<Lane>());
  }

  ~State() {
    stop_accepting();
    context_.stopping = true;
    on_every_connection(&Connection::close);
    // Handlers see that their clients are gone and return; what they leave to do is done by the lanes.
    context_.pool.stop();
    guards_.clear();
    for (std::thread& thread : threads_) thread.join();
  }

  Result<void> start() {
    raise_open_files_limit(context_.options.max_connections);
    asio::io_context& io = lanes_.front()->io;
    FATHOM_ASSIGN(const tcp::endpoint endpoint, resolve(io, context_.options.host, context_.options.port));
    FATHOM_ASSIGN(tcp::acceptor acceptor, listen(io, endpoint));
    acceptor_.emplace(std::move(acceptor));
    accept_pause_.emplace(io);
    ErrorCondition ignored;
    const tcp::endpoint local = acceptor_->local_endpoint(ignored);
    port_ = local.port();
    address_ = describe(local);
    for (const auto& lane : lanes_) {
      guards_.emplace_back(lane->io.get_executor());
      threads_.emplace_back([&io = lane->io] {
        begin_thread("http");
        io.run();
      });
    }
    asio::post(io, [this] { accept(); });
    return {};
  }

  void stop_accepting() {
    context_.draining = true;
    if (!acceptor_) return;
    asio::post(lanes_.front()->io, [this] {
      ErrorCondition ignored;
      acceptor_->close(ignored);
      accept_pause_->cancel();
    });
    on_every_connection(&Connection::drain);
  }

  ServerContext& context() { return context_; }
  uint16_t port() const { return port_; }
  const std::string& address() const { return address_; }

 private:
  void on_every_connection(void (Connection::*action)()) {
    for (const auto& lane : lanes_) {
      asio::post(lane->io, [&lane = *lane, action] {
        const auto connections = lane.connections;  // the action may take one out
        for (const auto& connection : connections) ((*connection).*action)();
      });
    }
  }

  void accept() {
    if (!acceptor_->is_open()) return;
    Lane& lane = *lanes_[next_lane_++ % lanes_.size()];
    acceptor_->async_accept(lane.io, [this, &lane](const ErrorCondition& ec, tcp::socket socket) {
      if (!acceptor_->is_open()) return;
      if (!ec) {
        admit(std::move(socket), lane);
      } else if (ec == asio::error::no_descriptors ||
                 ec == boost::system::errc::too_many_files_open_in_system || ec == asio::error::no_memory ||
                 ec == asio::error::no_buffer_space) {
        LOG_WARNING("http: cannot accept connections for now: {}", ec.message());
        accept_pause_->expires_after(kAcceptPause);
        return accept_pause_->async_wait([this](const ErrorCondition& cancelled) {
          if (!cancelled) accept();
        });
      }
      accept();
    });
  }

  void admit(tcp::socket socket, Lane& lane) {
    const int open = context_.connections_open;
    if (open >= context_.options.max_connections + kRefusedAtOnce) {
      ++context_.refused_busy;
      return;
    }
    const bool refused = open >= context_.options.max_connections;
    set_socket_options(socket, context_.options);
    auto connection = std::make_shared<Connection>(std::move(socket), context_, lane);
    asio::post(lane.io, [connection = std::move(connection), refused] { connection->start(refused); });
  }

  ServerContext context_;  // first: outlives what runs on the lanes
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::optional<tcp::acceptor> acceptor_;
  std::optional<asio::steady_timer> accept_pause_;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> guards_;
  std::vector<std::thread> threads_;
  size_t next_lane_ = 0;
  uint16_t port_ = 0;
  std::string address_;
};

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Handler handler) {
  auto state = std::make_unique<State>(std::move(options), std::move(handler));
  FATHOM_TRY(state->start());
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}
Server::~Server() = default;

uint16_t Server::port() const {
  return state_->port();
}
std::string Server::address() const {
  return state_->address();
}
void Server::stop_accepting() {
  state_->stop_accepting();
}

bool Server::drain(std::chrono::milliseconds timeout) {
  stop_accepting();
  return state_->context().wait_for_no_work(timeout);
}

Stats Server::stats() const {
  const ServerContext& context = state_->context();
  Stats stats;
  stats.connections_total = context.connections_total;
  stats.requests_total = context.requests_total;
  stats.refused_busy = context.refused_busy;
  stats.bad_requests = context.bad_requests;
  stats.timeouts = context.timeouts;
  stats.clients_gone = context.clients_gone;
  stats.connections_open = context.connections_open;
  stats.handlers_active = context.handlers_active;
  return stats;
}

}  // namespace fathom::http
