#include "base/metrics.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/check.h"

namespace fathom {
namespace {

// As the reference system's client library writes numbers: 1.0, 0.25, +Inf.
std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void append_escaped(std::string_view value, bool quoted, std::string* out) {
  for (const char c : value) {
    if (c == '\n') {
      *out += "\\n";
      continue;
    }
    if (c == '\\' || (quoted && c == '"')) *out += '\\';
    *out += c;
  }
}

}  // namespace

size_t metric_shard() {
  static std::atomic<size_t> next{0};
  thread_local const size_t shard = next.fetch_add(1, std::memory_order_relaxed) % kMetricShards;
  return shard;
}

int64_t Counter::value() const {
  int64_t sum = 0;
  for (const Shard& shard : shards_) sum += shard.value.load(std::memory_order_relaxed);
  return sum;
}

Histogram::Histogram(std::span<const double> bounds) : bounds_(bounds) {
  FATHOM_CHECK(bounds.size() <= kMaxBounds && std::is_sorted(bounds.begin(), bounds.end()), "{} bounds",
               bounds.size());
}

void Histogram::observe(double value, int64_t times) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  Shard& shard = shards_[metric_shard()];
  shard.counts[static_cast<size_t>(bucket)].fetch_add(times, std::memory_order_relaxed);
  shard.sum.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
}

Histogram::Reading Histogram::read() const {
  Reading reading;
  reading.counts.resize(bounds_.size() + 1);
  for (const Shard& shard : shards_) {
    reading.sum += shard.sum.load(std::memory_order_relaxed);
    for (size_t i = 0; i < reading.counts.size(); ++i) {
      reading.counts[i] += shard.counts[i].load(std::memory_order_relaxed);
    }
  }
  for (const int64_t count : reading.counts) reading.count += count;
  return reading;
}

void PrometheusText::family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} ", name);
  append_escaped(help, false, &text_);
  text_ += fmt::format("\n# TYPE {} {}\n", name, type);
}

void PrometheusText::line(std::string_view suffix, const Labels& labels, std::string_view value,
                          std::string_view bound) {
  text_ += name_;
  text_ += suffix;
  const char* before = "{";
  const auto label = [&](std::string_view name, std::string_view content) {
    text_ += before;
    text_ += name;
    text_ += "=\"";
    append_escaped(content, true, &text_);
    text_ += '"';
    before = ",";
  };
  if (!bound.empty()) label("le", bound);
  for (const auto& [name, content] : labels) label(name, content);
  if (*before == ',') text_ += '}';
  text_ += ' ';
  text_ += value;
  text_ += '\n';
}

void PrometheusText::sample(const Labels& labels, double value) {
  line("", labels, number(value));
}

void PrometheusText::sample(const Labels& labels, int64_t value) {
  line("", labels, std::to_string(value));
}

void PrometheusText::histogram(const Labels& labels, const Histogram& histogram) {
  const Histogram::Reading reading = histogram.read();
  int64_t below = 0;
  for (size_t i = 0; i < reading.counts.size(); ++i) {
    below += reading.counts[i];
    const bool last = i == histogram.bounds().size();
    line("_bucket", labels, std::to_string(below), last ? "+Inf" : number(histogram.bounds()[i]));
  }
  line("_sum", labels, number(reading.sum));
  line("_count", labels, std::to_string(reading.count));
}

}  // namespace fathom
