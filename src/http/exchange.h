// One request and its response, between a connection (I/O thread) and a handler (pool thread).
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "http/handler_pool.h"
#include "http/message.h"
#include "http/outbox.h"
#include "http/response_format.h"
#include "http/server_context.h"

namespace fathom::http {

class Exchange final : public ResponseWriter {
 public:
  // How the connection goes on after the response.
  enum class After { kKeepAlive, kClose, kCut };

  Exchange(ServerContext& context, std::shared_ptr<Outbox> outbox, std::shared_ptr<WorkToken> work,
           Request request, Framing framing);

  // Pool thread: calls the handler and completes the response whatever the handler does. Ends `turn` before
  // the response's last bytes can reach the client.
  After run(HandlerPool::Turn& turn);

  // I/O thread: the client has vanished.
  void vanish();

  void send(Response response) override;
  bool begin_stream(int status, std::string content_type, Headers headers) override;
  bool write(std::string_view bytes) override;
  void end() override;
  bool client_gone() const override { return gone_.load(std::memory_order_acquire) || outbox_->failed(); }
  void on_client_gone(std::function<void()> callback) override;
  void body_is_free() override { work_->count_body(request_.body.size()); }

 private:
  enum class Stage { kNothingSent, kStreaming, kComplete };
  bool may_keep_alive() const { return framing_.keep_alive && !context_.draining.load(); }

  ServerContext& context_;
  const std::shared_ptr<Outbox> outbox_;
  const std::shared_ptr<WorkToken> work_;
  const Framing framing_;

  // Pool thread only.
  Request request_;
  HandlerPool::Turn* turn_ = nullptr;
  Stage stage_ = Stage::kNothingSent;
  After after_ = After::kClose;
  bool body_allowed_ = true;  // neither HEAD nor 204 or 304

  std::atomic<bool> gone_{false};
  std::mutex mutex_;  // the members below
  std::condition_variable callback_ended_;
  std::function<void()> callback_;
  bool callback_running_ = false;
  bool callback_due_ = true;  // not called yet
};

}  // namespace fathom::http
