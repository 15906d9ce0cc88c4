// Counters and histograms for many threads, and the text that Prometheus reads.
//
// Recording takes no lock and waits for nobody: each thread adds to one of a few shards, which have cache
// lines of their own. A reading sums the shards; it may miss what is recorded meanwhile.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

inline constexpr size_t kMetricShards = 16;
// This thread's shard; threads are dealt to the shards in turn.
size_t metric_shard();

// Thread safe.
class Counter {
 public:
  void add(int64_t amount = 1) { shards_[metric_shard()].value.fetch_add(amount, std::memory_order_relaxed); }
  int64_t value() const;

 private:
  struct alignas(64) Shard {
    std::atomic<int64_t> value{0};
  };
  std::array<Shard, kMetricShards> shards_;
};

// Thread safe.
class Histogram {
 public:
  static constexpr size_t kMaxBounds = 49;

  // `bounds`: inclusive upper bounds of the buckets, ascending, at most kMaxBounds; one without a bound comes
  // last. They must outlive the histogram.
  explicit Histogram(std::span<const double> bounds);

  // `times` observations of `value`.
  void observe(double value, int64_t times = 1);

  struct Reading {
    std::vector<int64_t> counts;  // by bucket, not cumulative
    int64_t count = 0;
    double sum = 0.0;
  };
  Reading read() const;
  std::span<const double> bounds() const { return bounds_; }

 private:
  struct alignas(64) Shard {
    std::atomic<double> sum{0.0};
    std::array<std::atomic<int64_t>, kMaxBounds + 1> counts{};
  };
  const std::span<const double> bounds_;
  std::array<Shard, kMetricShards> shards_;
};

// Builds a page of Prometheus' text format, version 0.0.4. Not thread safe.
class PrometheusText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // Begins a family; its samples follow. `type`: counter, gauge or histogram.
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(const Labels& labels, double value);
  void sample(const Labels& labels, int64_t value);
  // The buckets (cumulative, as the format wants them), the sum and the count.
  void histogram(const Labels& labels, const Histogram& histogram);

  // A family of one sample.
  template <class Value>
  void single(std::string_view name, std::string_view type, std::string_view help, const Labels& labels,
              Value value) {
    family(name, type, help);
    sample(labels, value);
  }

  const std::string& text() const { return text_; }

 private:
  void line(std::string_view suffix, const Labels& labels, std::string_view value,
            std::string_view bound = {});

  std::string name_;  // of the family
  std::string text_;
};

}  // namespace fathom
