// The second half of Connection: answers, and the passing of time.
#include <algorithm>
#include <utility>

#include "http/connection.h"

namespace fathom::http {
namespace {

// After the last answer the client gets this long to close its side. Closing first, with bytes of the client
// unread, would send a reset, which can destroy an answer that the client has not read yet.
constexpr std::chrono::milliseconds kLinger{2000};
constexpr size_t kKeptBuffer = size_t{16} << 10;  // of an idle connection
constexpr std::chrono::milliseconds kFirstProbe{1000};
constexpr std::chrono::milliseconds kMaxProbe{64'000};

}  // namespace

void Connection::respond(const Response& response, Exchange::After after) {
  const bool keep_alive = after == Exchange::After::kKeepAlive && !context_.draining;
  const std::string head = format_head(response.status, response.content_type, response.headers,
                                       response.body.size(), framing_, keep_alive);
  const bool with_body = !framing_.head_only && status_has_body(response.status);
  phase_ = Phase::kFlushing;
  after_ = keep_alive ? Exchange::After::kKeepAlive : Exchange::After::kClose;
  outbox_->send({head, with_body ? std::string_view(response.body) : std::string_view()}, false,
                Outbox::Probe::kNone);
  if (outbox_->empty()) after_response();
}

void Connection::refuse(int status, std::string_view code, std::string_view message) {
  ++context_.bad_requests;
  respond(context_.options.format_error(status, code, message), Exchange::After::kClose);
}

void Connection::refuse_busy(std::string_view what) {
  ++context_.refused_busy;
  Response response = context_.options.format_error(
      503, "server_busy",
      "The server has as many " + std::string(what) + " as it can take; try again later.");
  response.headers.emplace_back("Retry-After", std::to_string(context_.options.retry_after.count()));
  // A request that was read completely need not cost the client its connection.
  const bool keep = !refused_ && framing_.keep_alive;
  respond(response, keep ? Exchange::After::kKeepAlive : Exchange::After::kClose);
}

void Connection::refuse_body() {
  parser_.take();  // its memory is wanted
  work_->count_body(0);
  framing_.keep_alive = false;
  refuse_busy("bytes of requests");
}

void Connection::on_exchange_done(Exchange::After after) {
  if (phase_ == Phase::kClosed) return;
  exchange_.reset();
  after_ = after;
  phase_ = Phase::kFlushing;
  if (after == Exchange::After::kCut || outbox_->failed()) return close();
  if (!outbox_->empty()) return;  // on_writable goes on
  after_response();
  advance();
}

// The answer is out. The caller calls advance() next.
void Connection::after_response() {
  work_.reset();
  framing_ = {};
  const bool more = after_ == Exchange::After::kKeepAlive && !context_.draining && !outbox_->failed();
  if (!more || (end_of_file_ && in_.size() == 0)) return linger();
  if (in_.size() == 0 && in_.capacity() > kKeptBuffer) in_.shrink_to_fit();
  phase_ = Phase::kIdle;
  set_deadline(Clock::now() + context_.options.idle_timeout);
}

void Connection::linger() {
  if (end_of_file_ || outbox_->failed()) return close();
  phase_ = Phase::kLingering;
  ErrorCode ignored;
  socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  in_.consume(in_.size());
  set_deadline(Clock::now() + kLinger);
  read_more();
}

void Connection::watch_writable() {
  if (phase_ == Phase::kClosed) return;
  if (!std::exchange(writing_, true)) {
    write_pace_ = Pace(context_.options.write_timeout, context_.options.min_bytes_per_second, Clock::now());
    writing_mark_ = outbox_->sent_bytes();
    set_deadline(write_pace_.deadline());
  }
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_write,
                     [self = shared_from_this()](const ErrorCode& ec) {
                       if (self->phase_ == Phase::kClosed) return;
                       if (ec) return self->vanish();
                       self->on_writable();
                     });
}

void Connection::on_writable() {
  switch (outbox_->flush()) {
    case Outbox::Flush::kFailed:
      return vanish();
    case Outbox::Flush::kBlocked:
      write_pace_.progress(outbox_->sent_bytes() - writing_mark_, Clock::now());
      set_deadline(write_pace_.deadline());
      return watch_writable();
    case Outbox::Flush::kEmpty:
      break;
  }
  writing_ = false;
  if (phase_ == Phase::kFlushing) {
    after_response();
    return advance();
  }
  if (phase_ != Phase::kHandling) return;
  if (end_of_file_) {
    probe();
  } else {
    set_deadline(Clock::time_point::max());
  }
}

// The timer is only moved when the deadline comes nearer. A deadline that went further away is found out
// about when the timer fires, so that a busy connection does not touch the timer queue for every request.
void Connection::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  if (deadline < timer_expiry_) arm_timer();
}

void Connection::arm_timer() {
  timer_expiry_ = deadline_;
  timer_.expires_at(deadline_);
  timer_.async_wait([self = shared_from_this()](const ErrorCode& ec) {
    if (!ec) self->on_timer();
  });
}

void Connection::on_timer() {
  if (phase_ == Phase::kClosed) return;
  timer_expiry_ = Clock::time_point::max();
  if (Clock::now() >= deadline_) {
    on_deadline();
  } else if (deadline_ != Clock::time_point::max()) {
    arm_timer();
  }
}

void Connection::on_deadline() {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kLingering:
      return close();
    case Phase::kHead:
      ++context_.timeouts;
      return refuse(408, "request_timeout", "The request's head did not arrive in time.");
    case Phase::kBody:
      ++context_.timeouts;
      return refuse(408, "request_timeout", "The request's body arrives too slowly.");
    case Phase::kHandling:
    case Phase::kFlushing:
      if (!writing_) return probe();
      ++context_.timeouts;
      return vanish();
    case Phase::kClosed:
      return;
  }
}

void Connection::probe() {
  if (phase_ != Phase::kHandling) return;
  outbox_->probe();
  probe_interval_ = probe_interval_.count() == 0 ? kFirstProbe : std::min(probe_interval_ * 2, kMaxProbe);
  set_deadline(Clock::now() + probe_interval_);
}

}  // namespace fathom::http
