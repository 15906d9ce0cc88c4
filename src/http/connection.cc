#include "http/connection.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "base/log.h"

namespace fathom::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

std::string describe(const tcp::socket& socket) {
  boost::system::error_code ec;
  const tcp::endpoint endpoint = socket.remote_endpoint(ec);
  if (ec) return "";
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(endpoint.port());
}

// True when the connection is over in both directions, as after a reset.
bool is_hung_up(int fd) {
  pollfd poll_fd{fd, 0, 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

Connection::Connection(tcp::socket socket, ServerContext& context, Lane& lane)
    : socket_(std::move(socket)),
      context_(context),
      lane_(lane),
      timer_(lane.io),
      parser_({context.options.max_header_bytes, context.options.max_body_bytes}) {
  ++context_.connections_open;
  ++context_.connections_total;
}

Connection::~Connection() {
  --context_.connections_open;
}

void Connection::start(bool refused) {
  lane_.connections.insert(shared_from_this());
  const auto on_lane = [weak = weak_from_this(), &io = lane_.io](void (Connection::*action)()) {
    return [weak, &io, action] {
      asio::post(io, [weak, action] {
        if (const auto self = weak.lock()) ((*self).*action)();
      });
    };
  };
  outbox_ = std::make_shared<Outbox>(
      socket_.native_handle(),
      Outbox::Hooks{on_lane(&Connection::watch_writable), on_lane(&Connection::vanish)});
  if (context_.stopping) return close();
  refused_ = refused;
  remote_ = describe(socket_);
  // A connection made without a request to send has no more time than a slow head.
  set_deadline(Clock::now() + context_.options.header_timeout);
  read_more();
}

void Connection::drain() {
  if (phase_ == Phase::kIdle) close();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  const std::shared_ptr<Connection> self = shared_from_this();
  const std::shared_ptr<Exchange> exchange = std::move(exchange_);
  outbox_->detach();
  ErrorCode ignored;
  timer_.cancel();
  socket_.close(ignored);
  work_.reset();
  lane_.connections.erase(self);
  if (exchange) exchange->vanish();
}

void Connection::vanish() {
  if (phase_ == Phase::kHandling) ++context_.clients_gone;
  close();
}

void Connection::read_more() {
  if (phase_ == Phase::kClosed || reading_ || end_of_file_) return;
  const bool waiting = phase_ == Phase::kHandling || phase_ == Phase::kFlushing;
  // While a request is in work, a bounded part of what the client sends ahead is read; more than that stays
  // in the kernel, and only a reset is noticed.
  if (waiting && in_.size() >= context_.options.max_header_bytes) return watch_for_reset();
  // The bytes are fetched when they are there, so that a quiet connection needs no buffer.
  reading_ = true;
  socket_.async_wait(tcp::socket::wait_read,
                     [self = shared_from_this()](const ErrorCode& ec) { self->on_readable(ec); });
}

void Connection::on_readable(ErrorCode ec) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  const size_t bytes = ec ? 0 : socket_.read_some(asio::buffer(lane_.scratch), ec);
  if (ec == asio::error::would_block) return read_more();
  if (ec && ec != asio::error::eof) return vanish();
  in_.commit(asio::buffer_copy(in_.prepare(bytes), asio::buffer(lane_.scratch, bytes)));
  end_of_file_ = ec == asio::error::eof;
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kHead:
    case Phase::kBody:
      return advance();
    case Phase::kHandling:
      if (!end_of_file_) return read_more();
      watch_for_reset();
      if (!writing_) probe();
      return;
    case Phase::kFlushing:
      return end_of_file_ ? watch_for_reset() : read_more();
    case Phase::kLingering:
      if (end_of_file_) return close();
      in_.consume(in_.size());
      return read_more();
    case Phase::kClosed:
      return;
  }
}

void Connection::watch_for_reset() {
  if (watching_reset_ || phase_ == Phase::kClosed) return;
  watching_reset_ = true;
  socket_.async_wait(tcp::socket::wait_error, [self = shared_from_this()](const ErrorCode& ec) {
    self->watching_reset_ = false;
    if (ec || self->phase_ == Phase::kClosed) return;
    // Urgent data ends this wait too.
    if (is_hung_up(self->socket_.native_handle())) return self->vanish();
    if (self->phase_ == Phase::kHandling || self->phase_ == Phase::kFlushing) self->watch_for_reset();
  });
}

void Connection::advance() {
  while (phase_ == Phase::kIdle || phase_ == Phase::kHead || phase_ == Phase::kBody) {
    const auto idle_deadline = deadline_;
    if (phase_ == Phase::kIdle) {
      if (in_.size() == 0) break;
      phase_ = Phase::kHead;
      work_ = std::make_shared<WorkToken>(context_);
      set_deadline(Clock::now() + context_.options.header_timeout);
    }
    const asio::const_buffer bytes = in_.cdata();
    size_t used = 0;
    const auto status = parser_.feed({static_cast<const char*>(bytes.data()), bytes.size()}, &used);
    in_.consume(used);
    if (status == RequestParser::Status::kNeedMore) {
      if (phase_ == Phase::kHead && in_.size() == 0 && !parser_.begun()) {  // only empty lines
        phase_ = Phase::kIdle;
        work_.reset();
        set_deadline(idle_deadline);
      }
      if (phase_ == Phase::kBody) {
        if (!work_->count_body(parser_.body_bytes())) {
          refuse_body();
          break;
        }
        body_pace_.progress(parser_.body_bytes(), Clock::now());
        set_deadline(body_pace_.deadline());
      }
      break;
    }
    if (status == RequestParser::Status::kHead) {
      on_head();
    } else if (status == RequestParser::Status::kComplete) {
      if (work_->count_body(parser_.body_bytes())) {
        dispatch(true);
      } else {
        refuse_body();
      }
    } else {
      refuse(parser_.error().status, parser_.error().code, parser_.error().message);
    }
  }
  if (end_of_file_) {
    if (phase_ == Phase::kIdle) return close();
    if (phase_ == Phase::kHead || phase_ == Phase::kBody) {
      return refuse(400, "bad_request", "The request ends in the middle.");
    }
    if (phase_ == Phase::kHandling) {
      watch_for_reset();
      if (!writing_) probe();
    }
    return;
  }
  read_more();
}

void Connection::on_head() {
  phase_ = Phase::kBody;
  if (refused_) return refuse_busy("connections");
  needs_ = context_.options.needs ? context_.options.needs(parser_.head()) : RequestNeeds{};
  if (!needs_.body && !parser_.complete()) return dispatch(false);
  body_pace_ = Pace(context_.options.body_timeout, context_.options.min_bytes_per_second, Clock::now());
  set_deadline(body_pace_.deadline());
  if (parser_.expects_continue() && in_.size() == 0) {
    outbox_->send({"HTTP/1.1 100 Continue\r\n\r\n"}, false, Outbox::Probe::kNone);
  }
}

void Connection::dispatch(bool with_body) {
  framing_.http_1_0 = parser_.http_1_0();
  framing_.keep_alive = parser_.keep_alive() && with_body;  // else its bytes are still to come
  Request request = parser_.take();
  request.remote = remote_;
  framing_.head_only = request.method == "HEAD";
  framing_.extra_headers = cors_headers(context_.options.cors_origins, request.header("Origin"));
  const Exchange::After after = framing_.keep_alive ? Exchange::After::kKeepAlive : Exchange::After::kClose;
  if (!context_.options.cors_origins.empty() && is_cors_preflight(request)) {
    return respond(cors_preflight_answer(request), after);
  }
  phase_ = Phase::kHandling;
  set_deadline(Clock::time_point::max());
  probe_interval_ = std::chrono::milliseconds(0);
  outbox_->expect(Outbox::Probe::kStatusLine);
  exchange_ = std::make_shared<Exchange>(context_, outbox_, work_, std::move(request), framing_);
  const bool accepted = context_.pool.submit(
      [self = shared_from_this(), exchange = exchange_](HandlerPool::Turn& turn) mutable {
        ++self->context_.requests_total;
        ++self->context_.handlers_active;
        const Exchange::After after = exchange->run(turn);
        --self->context_.handlers_active;
        // The last references go with the post, so that the connection ends on its own thread.
        asio::io_context& io = self->lane_.io;
        exchange.reset();
        asio::post(io, [self = std::move(self), after] { self->on_exchange_done(after); });
      },
      needs_.reserve);
  if (accepted) return;
  outbox_->expect(Outbox::Probe::kNone);
  exchange_.reset();
  refuse_busy("requests");
}

}  // namespace fathom::http
