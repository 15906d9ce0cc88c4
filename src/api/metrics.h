// What the service counts of its requests, for /metrics. The scheduler's own figures are SchedulerStats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/metrics.h"

namespace fathom::api {

// How far a request was when its client vanished.
enum class Stage { kQueued, kPrefill, kDecode, kToolCall };
inline constexpr size_t kStages = 4;
const char* to_string(Stage stage);

// How a choice ended.
enum class Outcome { kStop, kLength, kAborted, kFailed, kDisconnected };
inline constexpr size_t kOutcomes = 5;
const char* to_string(Outcome outcome);

// The reference system's buckets, which its dashboards draw.
inline constexpr double kFirstTokenBounds[] = {0.1, 0.2, 0.4, 0.6, 0.8, 1,  2,   4,   6,
                                               8,   10,  20,  40,  60,  80, 100, 200, 400};
inline constexpr double kBetweenTokensBounds[] = {0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025,
                                                  0.030, 0.035, 0.040, 0.060, 0.080, 0.1,   0.2,   0.4,
                                                  0.6,   0.8,   1,     2,     4,     6,     8};
// Fine enough to read quantiles from: twelve a decade, as resistors are sold.
inline constexpr double kFineBetweenTokensBounds[] = {
    0.00010, 0.00012, 0.00015, 0.00018, 0.00022, 0.00027, 0.00033, 0.00039, 0.00047, 0.00056,
    0.00068, 0.00082, 0.0010,  0.0012,  0.0015,  0.0018,  0.0022,  0.0027,  0.0033,  0.0039,
    0.0047,  0.0056,  0.0068,  0.0082,  0.010,   0.012,   0.015,   0.018,   0.022,   0.027,
    0.033,   0.039,   0.047,   0.056,   0.068,   0.082,   0.10,    0.12,    0.15,    0.18,
    0.22,    0.27,    0.33,    0.39,    0.47,    0.56,    0.68,    0.82,    1.0};
inline constexpr double kWholeRequestBounds[] = {0.1, 0.2, 0.4, 0.6, 0.8, 1,   2,   4,   6,    8,    10,
                                                 20,  40,  60,  80,  100, 200, 400, 600, 1200, 1800, 2400};
inline constexpr double kPromptTokensBounds[] = {100,   300,   500,   700,   1000,  1500,  2000,  3000,
                                                 4000,  5000,  6000,  7000,  8000,  9000,  10000, 12000,
                                                 15000, 20000, 22000, 25000, 30000, 35000, 40000};
inline constexpr double kGenerationTokensBounds[] = {100,  300,  500,  1000, 1200, 1500, 1700,
                                                     2000, 2500, 3000, 3500, 4000, 4500, 5000,
                                                     6000, 7000, 8000, 9000, 10000};

// Thread safe; recording waits for nobody.
struct ServiceMetrics {
  // Answers by HTTP status; the last is any other.
  static constexpr int kStatuses[] = {200, 400, 401, 403, 404, 405, 413, 429, 500, 503, 0};
  std::array<Counter, std::size(kStatuses)> answers;
  void count_answer(int status);

  std::array<Counter, kOutcomes> outcomes;   // of choices
  std::array<Counter, kStages> disconnects;  // of choices, by stage

  Histogram first_token_seconds{kFirstTokenBounds};  // from the request's arrival
  Histogram between_tokens_seconds{kBetweenTokensBounds};
  Histogram fine_between_tokens_seconds{kFineBetweenTokensBounds};
  Histogram request_seconds{kWholeRequestBounds};
  Histogram queue_seconds{kFirstTokenBounds};
  Histogram prompt_tokens{kPromptTokensBounds};
  Histogram uncached_prompt_tokens{kPromptTokensBounds};
  Histogram generation_tokens{kGenerationTokensBounds};
};

}  // namespace fathom::api
