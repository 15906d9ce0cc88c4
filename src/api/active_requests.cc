#include "api/active_requests.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>

namespace fathom::api {

uint64_t random_seed() {
  uint64_t bits = 0;  // from the kernel: ids must not be guessable
  const ssize_t got = ::getrandom(&bits, sizeof bits, 0);
  FATHOM_CHECK(got == sizeof bits, "getrandom gave {} bytes", got);
  return bits;
}

std::string random_id() {
  return fmt::format("{:016x}{:016x}", random_seed(), random_seed());
}

void CancelSwitch::add(const std::string& sink_id) {
  {
    std::lock_guard lock(mutex_);
    ids_.push_back(sink_id);
  }
  if (pulled()) sink_.cancel(sink_id);
}

void CancelSwitch::remove(const std::string& sink_id) {
  std::lock_guard lock(mutex_);
  std::erase(ids_, sink_id);
}

void CancelSwitch::pull() {
  pulled_.store(true);
  std::vector<std::string> ids;
  {
    std::lock_guard lock(mutex_);
    ids = ids_;
  }
  for (const std::string& id : ids) sink_.cancel(id);
}

bool ActiveRequests::add(const std::string& rid, std::shared_ptr<CancelSwitch> cancel) {
  std::lock_guard lock(mutex_);
  return by_rid_.emplace(rid, std::move(cancel)).second;
}

void ActiveRequests::remove(const std::string& rid) {
  std::lock_guard lock(mutex_);
  by_rid_.erase(rid);
}

bool ActiveRequests::cancel(const std::string& rid) {
  std::shared_ptr<CancelSwitch> found;
  {
    std::lock_guard lock(mutex_);
    const auto it = by_rid_.find(rid);
    if (it == by_rid_.end()) return false;
    found = it->second;
  }
  found->pull();
  return true;
}

size_t ActiveRequests::size() const {
  std::lock_guard lock(mutex_);
  return by_rid_.size();
}

}  // namespace fathom::api
