#include "base/metrics.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace fathom {
namespace {

constexpr double kBounds[] = {0.5, 1.0, 2.0};

TEST(Metrics, ManyThreadsLoseNothing) {
  Counter counter;
  Histogram histogram(kBounds);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        counter.add(2);
        histogram.observe(1.0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 160'000);
  const Histogram::Reading reading = histogram.read();
  EXPECT_EQ(reading.count, 80'000);
  EXPECT_DOUBLE_EQ(reading.sum, 80'000.0);
}

TEST(Metrics, BoundsAreInclusive) {
  Histogram histogram(kBounds);
  for (const double value : {0.1, 0.5, 0.6, 2.0, 2.1}) histogram.observe(value);
  histogram.observe(1.5, 3);
  EXPECT_EQ(histogram.read().counts, (std::vector<int64_t>{2, 1, 4, 1}));
  EXPECT_DOUBLE_EQ(histogram.read().sum, 5.3 + 4.5);
}

TEST(Metrics, TextIsPrometheus) {
  PrometheusText page;
  page.single("a_total", "counter", "Of a\\b\nand more.", {{"model", "x\"y\\z\n"}}, int64_t{7});
  page.single("b", "gauge", "B.", {}, 0.25);
  Histogram histogram(kBounds);
  histogram.observe(0.7);
  histogram.observe(9);
  page.family("c_seconds", "histogram", "C.");
  page.histogram({{"k", "v"}}, histogram);
  EXPECT_EQ(page.text(),
            "# HELP a_total Of a\\\\b\\nand more.\n"
            "# TYPE a_total counter\n"
            "a_total{model=\"x\\\"y\\\\z\\n\"} 7\n"
            "# HELP b B.\n"
            "# TYPE b gauge\n"
            "b 0.25\n"
            "# HELP c_seconds C.\n"
            "# TYPE c_seconds histogram\n"
            "c_seconds_bucket{le=\"0.5\",k=\"v\"} 0\n"
            "c_seconds_bucket{le=\"1.0\",k=\"v\"} 1\n"
            "c_seconds_bucket{le=\"2.0\",k=\"v\"} 1\n"
            "c_seconds_bucket{le=\"+Inf\",k=\"v\"} 2\n"
            "c_seconds_sum{k=\"v\"} 9.7\n"
            "c_seconds_count{k=\"v\"} 2\n");
}

}  // namespace
}  // namespace fathom
