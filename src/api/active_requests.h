// The requests being worked on, by the id their client knows, so that they can be cancelled: by
// /abort_request, by a client that vanished, or because their text already ended.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/request.h"

namespace fathom::api {

// 32 hex digits that cannot be guessed.
std::string random_id();
uint64_t random_seed();

// The cancel switch of one HTTP request: all its sink requests. Thread safe; owned by whoever may pull it.
class CancelSwitch {
 public:
  explicit CancelSwitch(RequestSink& sink) : sink_(sink) {}

  // Cancels the request `sink_id` when the switch is pulled, or now if it has been.
  void add(const std::string& sink_id);
  void remove(const std::string& sink_id);
  void pull();
  bool pulled() const { return pulled_.load(); }

 private:
  RequestSink& sink_;
  std::mutex mutex_;
  std::vector<std::string> ids_;
  std::atomic<bool> pulled_ = false;
};

// Thread safe.
class ActiveRequests {
 public:
  // False when `rid` is in use.
  bool add(const std::string& rid, std::shared_ptr<CancelSwitch> cancel);
  void remove(const std::string& rid);
  // Cancels the request called exactly `rid`; false when there is none.
  bool cancel(const std::string& rid);
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<CancelSwitch>> by_rid_;
};

}  // namespace fathom::api
