// One client connection: reads requests, hands them to the pool, lets the next one begin when the answer is
// out.
//
// Everything here runs on one I/O thread (that of its lane), except where said otherwise.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "http/exchange.h"
#include "http/outbox.h"
#include "http/pace.h"
#include "http/request_parser.h"
#include "http/server_context.h"

namespace fathom::http {

class Connection;

// One I/O thread's share of the connections.
struct Lane {
  boost::asio::io_context io{1};
  std::array<char, 64 << 10> scratch;                           // what a read returns, until it is copied
  std::unordered_set<std::shared_ptr<Connection>> connections;  // this lane's thread only
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, ServerContext& context, Lane& lane);
  ~Connection();

  // `refused`: too many connections; whatever is asked, the answer is 503.
  void start(bool refused);
  // Closes an idle connection; others close after their answer.
  void drain();
  void close();

 private:
  using Clock = Pace::Clock;
  using ErrorCode = boost::system::error_code;
  enum class Phase { kIdle, kHead, kBody, kHandling, kFlushing, kLingering, kClosed };

  // Reading.
  void read_more();
  void on_readable(ErrorCode ec);
  void advance();
  void on_head();
  void dispatch(bool with_body);
  void watch_for_reset();

  // Answering.
  void respond(const Response& response, Exchange::After after);
  void refuse(int status, std::string_view code, std::string_view message);
  void refuse_busy(std::string_view what);
  void refuse_body();
  void on_exchange_done(Exchange::After after);
  void after_response();
  void linger();
  void watch_writable();
  void on_writable();

  // Time.
  void set_deadline(Clock::time_point deadline);
  void arm_timer();
  void on_timer();
  void on_deadline();
  void probe();

  void vanish();

  boost::asio::ip::tcp::socket socket_;
  ServerContext& context_;
  Lane& lane_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<Outbox> outbox_;
  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<WorkToken> work_;
  RequestParser parser_;
  boost::beast::flat_buffer in_;
  std::string remote_;
  Framing framing_;     // of the request in work
  RequestNeeds needs_;  // the same

  Phase phase_ = Phase::kIdle;
  Exchange::After after_ = Exchange::After::kKeepAlive;
  bool reading_ = false;
  bool end_of_file_ = false;
  bool refused_ = false;
  bool watching_reset_ = false;

  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point timer_expiry_ = Clock::time_point::max();  // of the wait in progress
  Pace body_pace_;
  bool writing_ = false;  // bytes wait for the client
  Pace write_pace_;
  uint64_t writing_mark_ = 0;  // bytes sent when it began
  std::chrono::milliseconds probe_interval_{0};
};

}  // namespace fathom::http
