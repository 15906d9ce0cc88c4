// For tests and fuzzing of this room: a RequestSink that plays a script, and a ResponseWriter that remembers.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "core/request.h"
#include "http/message.h"

namespace fathom::api {

// Thread safe. Each request gets the events that `script` returns for it, at once; where the last one has no
// finish, the request runs until it is cancelled.
class FakeSink final : public RequestSink {
 public:
  using Script = std::function<Result<std::vector<TokenEvent>>(const GenerateRequest&)>;

  explicit FakeSink(Script script) : script_(std::move(script)) {
    stats_.progress_ns = steady_clock().now_ns();
  }

  Result<std::shared_ptr<TokenStream>> submit(GenerateRequest request) override {
    FATHOM_ASSIGN(std::vector<TokenEvent> events, script_(request));
    auto stream = std::make_shared<TokenStream>();
    std::lock_guard lock(mutex_);
    bool finished = false;
    std::deque<TokenEvent> later;
    for (TokenEvent& event : events) {
      finished = finished || event.finish.has_value();
      if (one_by_one_ && &event != &events.front()) {
        later.push_back(std::move(event));
      } else {
        stream->push(std::move(event));
      }
    }
    if (!later.empty()) later_.emplace_back(stream, std::move(later));
    if (!finished) running_[request.id] = stream;
    requests_.push_back(std::move(request));
    return stream;
  }
  void cancel(const std::string& id) override {
    std::lock_guard lock(mutex_);
    cancelled_.insert(id);
    abort(id);
  }
  void finish(const std::string& id) override {
    std::lock_guard lock(mutex_);
    finished_.insert(id);
    abort(id);
  }
  void cancel_all() override {
    std::lock_guard lock(mutex_);
    while (!running_.empty()) abort(running_.begin()->first);
  }
  Result<void> flush_cache() override {
    std::lock_guard lock(mutex_);
    if (running_.empty()) return {};
    return error(ErrorCode::kUnavailable, "{} requests are running", running_.size());
  }
  SchedulerStats stats() const override {
    std::lock_guard lock(mutex_);
    SchedulerStats stats = stats_;
    stats.running_requests = static_cast<int64_t>(running_.size());
    return stats;
  }

  // From now on a request gets its first event at once, and one more at each call of give_next().
  void set_one_by_one() {
    std::lock_guard lock(mutex_);
    one_by_one_ = true;
  }
  void give_next() {
    std::lock_guard lock(mutex_);
    for (auto& [stream, events] : later_) {
      if (events.empty()) continue;
      stream->push(std::move(events.front()));
      events.pop_front();
    }
  }

  void set_stats(const SchedulerStats& stats) {
    std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  std::vector<GenerateRequest> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  void forget_requests() {
    std::lock_guard lock(mutex_);
    requests_.clear();
    cancelled_.clear();
    finished_.clear();
  }
  size_t running() const {
    std::lock_guard lock(mutex_);
    return running_.size();
  }
  size_t cancelled() const {
    std::lock_guard lock(mutex_);
    return cancelled_.size();
  }
  size_t finished() const {
    std::lock_guard lock(mutex_);
    return finished_.size();
  }

 private:
  void abort(std::string id) {
    const auto it = running_.find(id);
    if (it == running_.end()) return;
    TokenEvent event;
    event.finish = FinishReason{FinishReason::Kind::kAbort, {}, {}};
    it->second->push(std::move(event));
    running_.erase(it);
  }

  const Script script_;
  mutable std::mutex mutex_;
  std::vector<GenerateRequest> requests_;
  std::map<std::string, std::shared_ptr<TokenStream>> running_;
  std::set<std::string> cancelled_;
  std::set<std::string> finished_;  // of those whose text had ended
  bool one_by_one_ = false;
  std::vector<std::pair<std::shared_ptr<TokenStream>, std::deque<TokenEvent>>> later_;
  SchedulerStats stats_;
};

// Used by one handler thread; vanish() may be called from another.
class FakeWriter final : public http::ResponseWriter {
 public:
  void send(http::Response response) override {
    ++answers;
    answer = std::move(response);
  }
  bool begin_stream(int status, std::string content_type, http::Headers headers) override {
    ++answers;
    answer.status = status;
    answer.content_type = std::move(content_type);
    answer.headers = std::move(headers);
    return !client_gone();
  }
  bool write(std::string_view bytes) override {
    if (writes_left == 0) vanish();
    if (client_gone()) return false;
    if (writes_left > 0) --writes_left;
    answer.body += bytes;
    if (on_write) on_write();
    return true;
  }
  void end() override { ended = true; }
  bool client_gone() const override {
    std::lock_guard lock(mutex_);
    ++looks_;
    return gone_;
  }
  void on_client_gone(std::function<void()> callback) override {
    std::lock_guard lock(mutex_);
    if (gone_ && callback) return callback();
    callback_ = std::move(callback);
  }
  // How often somebody has asked whether the client is gone.
  int looks() const {
    std::lock_guard lock(mutex_);
    return looks_;
  }
  void vanish() {
    std::lock_guard lock(mutex_);
    if (std::exchange(gone_, true)) return;
    if (callback_) callback_();
  }

  http::Response answer;  // a stream's text is its body
  int answers = 0;        // must be 1 when the handler returns, or 0 when the client vanished
  bool ended = false;
  std::function<void()> on_write;
  int writes_left = -1;  // the client vanishes at the write after these; -1: it stays

 private:
  mutable std::mutex mutex_;
  bool gone_ = false;
  mutable int looks_ = 0;
  std::function<void()> callback_;
};

}  // namespace fathom::api
