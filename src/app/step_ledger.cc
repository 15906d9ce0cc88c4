#include "app/step_ledger.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace fathom::app {

void print_ledger(const std::string& title, const std::vector<engine::OpTime>& ops) {
  struct Total {
    std::string op;
    int64_t calls = 0;
    double us = 0.0;
  };
  std::map<std::string, Total> by_op;
  double all = 0.0;
  for (const auto& op : ops) {
    Total& total = by_op[op.op];
    total.op = op.op;
    ++total.calls;
    total.us += op.us;
    all += op.us;
  }
  std::vector<Total> totals;
  for (const auto& [name, total] : by_op) totals.push_back(total);
  std::sort(totals.begin(), totals.end(), [](const Total& a, const Total& b) { return a.us > b.us; });
  std::printf("\n%s: %.0f us in %zu launches, timed one by one\n", title.c_str(), all, ops.size());
  std::printf("  %-24s %6s %10s %9s %7s\n", "op", "calls", "us", "us/call", "share");
  for (const Total& total : totals) {
    std::printf("  %-24s %6lld %10.1f %9.2f %6.1f%%\n", total.op.c_str(), static_cast<long long>(total.calls),
                total.us, total.us / static_cast<double>(total.calls), 100.0 * total.us / all);
  }
  std::fflush(stdout);
}

void print_floors(const engine::Plan& plan, int32_t sequences, double context, double gigabytes_per_second) {
  const auto us = [&](double bytes) { return bytes / gigabytes_per_second * 1e-3; };
  double all = 0.0;
  std::printf("  floor of a decode step by part, at %.0f GB/s\n", gigabytes_per_second);
  const auto line = [&](const std::string& name, double bytes) {
    all += bytes;
    std::printf("  %-24s %17.1f\n", name.c_str(), us(bytes));
  };
  for (const auto& part : plan.memory.weights) {
    auto bytes = static_cast<double>(part.bytes);
    if (bytes == 0.0) continue;
    if (part.name == "embedding") continue;  // a row a token
    if (part.name == "routed experts") {
      const double share =
          static_cast<double>(plan.config.gate.top_k) / static_cast<double>(plan.config.num_experts);
      bytes *= 1.0 - std::pow(1.0 - share, sequences);
    }
    line(part.name, bytes);
  }
  line("cache", sequences * context * static_cast<double>(plan.memory.kv_bytes_per_token));
  std::printf("  %-24s %17.1f\n", "all", us(all));
}

Result<void> write_chrome_trace(
    const std::string& path, const std::vector<std::pair<std::string, std::vector<engine::OpTime>>>& steps) {
  auto events = nlohmann::ordered_json::array();
  for (size_t track = 0; track < steps.size(); ++track) {
    events.push_back({{"name", "thread_name"},
                      {"ph", "M"},
                      {"pid", 0},
                      {"tid", track},
                      {"args", {{"name", steps[track].first}}}});
    for (const auto& op : steps[track].second) {
      events.push_back(
          {{"name", op.op}, {"ph", "X"}, {"pid", 0}, {"tid", track}, {"ts", op.start_us}, {"dur", op.us}});
    }
  }
  std::ofstream file(path);
  file << nlohmann::ordered_json{{"traceEvents", events}}.dump(1) << '\n';
  if (!file.flush()) return error(ErrorCode::kInvalidArgument, "--ledger-trace {}: cannot be written", path);
  return {};
}

}  // namespace fathom::app
