#include "http/exchange.h"

#include <exception>
#include <utility>

#include "base/log.h"

namespace fathom::http {

Exchange::Exchange(ServerContext& context, std::shared_ptr<Outbox> outbox, std::shared_ptr<WorkToken> work,
                   Request request, Framing framing)
    : context_(context),
      outbox_(std::move(outbox)),
      work_(std::move(work)),
      framing_(std::move(framing)),
      request_(std::move(request)) {}

Exchange::After Exchange::run(HandlerPool::Turn& turn) {
  turn_ = &turn;
  bool failed = true;
  try {
    context_.handler(request_, *this);
    failed = false;
  } catch (const std::exception& e) {
    LOG_ERROR("http: {} {}: the handler failed: {}", request_.method, request_.path, e.what());
  } catch (...) {
    LOG_ERROR("http: {} {}: the handler failed", request_.method, request_.path);
  }
  on_client_gone(nullptr);
  if (stage_ == Stage::kNothingSent && !client_gone()) {
    if (!failed) LOG_ERROR("http: {} {}: the handler gave no answer", request_.method, request_.path);
    send(context_.options.format_error(500, "internal_error", "The server failed to handle this request."));
  } else if (stage_ == Stage::kStreaming) {
    if (failed) return After::kCut;
    end();
  }
  return after_;
}

void Exchange::send(Response response) {
  FATHOM_CHECK(stage_ == Stage::kNothingSent, "send() after an answer was begun");
  stage_ = Stage::kComplete;
  const bool keep_alive = may_keep_alive();
  after_ = keep_alive ? After::kKeepAlive : After::kClose;
  const std::string head = format_head(response.status, response.content_type, response.headers,
                                       response.body.size(), framing_, keep_alive);
  const bool with_body = !framing_.head_only && status_has_body(response.status);
  turn_->end();
  outbox_->send({head, with_body ? std::string_view(response.body) : std::string_view()}, false,
                Outbox::Probe::kNone);
}

bool Exchange::begin_stream(int status, std::string content_type, Headers headers) {
  FATHOM_CHECK(stage_ == Stage::kNothingSent, "begin_stream() after an answer was begun");
  stage_ = Stage::kStreaming;
  body_allowed_ = !framing_.head_only && status_has_body(status);
  // Without chunks only the end of the connection can end a body.
  const bool keep_alive = may_keep_alive() && (!framing_.http_1_0 || !body_allowed_);
  after_ = keep_alive ? After::kKeepAlive : After::kClose;
  const std::string head = format_head(status, content_type, headers, std::nullopt, framing_, keep_alive);
  const bool chunked = body_allowed_ && !framing_.http_1_0;
  return outbox_->send({head}, true, chunked ? Outbox::Probe::kChunkSize : Outbox::Probe::kNone);
}

bool Exchange::write(std::string_view bytes) {
  FATHOM_CHECK(stage_ == Stage::kStreaming, "write() outside a stream");
  if (client_gone()) return false;
  // An empty chunk would end the stream.
  if (!body_allowed_ || bytes.empty()) return true;
  if (framing_.http_1_0) return outbox_->send({bytes}, true, Outbox::Probe::kNone);
  return outbox_->send({chunk_size_line(bytes.size()), bytes, "\r\n"}, true, Outbox::Probe::kChunkSize);
}

void Exchange::end() {
  FATHOM_CHECK(stage_ == Stage::kStreaming, "end() outside a stream");
  stage_ = Stage::kComplete;
  turn_->end();
  if (body_allowed_ && !framing_.http_1_0) outbox_->send({"0\r\n\r\n"}, false, Outbox::Probe::kNone);
}

void Exchange::vanish() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    if (gone_.exchange(true)) return;
    if (!callback_) return;
    callback = std::exchange(callback_, nullptr);
    callback_due_ = false;
    callback_running_ = true;
  }
  callback();
  callback = nullptr;  // what it owns goes before the handler is let on
  std::lock_guard lock(mutex_);
  callback_running_ = false;
  callback_ended_.notify_all();
}

void Exchange::on_client_gone(std::function<void()> callback) {
  std::function<void()> previous;  // destroyed without the lock
  {
    std::unique_lock lock(mutex_);
    callback_ended_.wait(lock, [&] { return !callback_running_; });
    previous = std::exchange(callback_, nullptr);
    if (!callback || !callback_due_) return;
    if (!client_gone()) {
      callback_ = std::move(callback);
      return;
    }
    callback_due_ = false;
  }
  callback();
}

}  // namespace fathom::http
