#include "api/metrics.h"

#include <algorithm>
#include <iterator>

namespace fathom::api {

const char* to_string(Stage stage) {
  static constexpr const char* kNames[] = {"queued", "prefill", "decode", "tool_call"};
  return kNames[static_cast<size_t>(stage)];
}

const char* to_string(Outcome outcome) {
  static constexpr const char* kNames[] = {"stop", "length", "abort", "error", "disconnect"};
  return kNames[static_cast<size_t>(outcome)];
}

void ServiceMetrics::count_answer(int status) {
  const auto* last = std::end(kStatuses) - 1;
  const auto* found = std::find(std::begin(kStatuses), last, status);
  answers[static_cast<size_t>(found - kStatuses)].add();
}

}  // namespace fathom::api
