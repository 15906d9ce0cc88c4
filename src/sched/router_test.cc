// Where requests go, when there are several schedulers.
#include "sched/router.h"

#include <gtest/gtest.h>

#include <numeric>

namespace fathom::sched {
namespace {

class FakeSink final : public RequestSink {
 public:
  Result<std::shared_ptr<TokenStream>> submit(GenerateRequest request) override {
    if (full) return error(ErrorCode::kUnavailable, "full");
    taken.push_back(request.id);
    ++load.waiting_requests;
    return std::make_shared<TokenStream>();
  }
  void cancel(const std::string& id) override { cancelled.push_back(id); }
  void finish(const std::string& id) override { finished.push_back(id); }
  void cancel_all() override {}
  Result<void> flush_cache() override { return {}; }
  SchedulerStats stats() const override { return load; }

  bool full = false;
  SchedulerStats load;
  std::vector<std::string> taken, cancelled, finished;
};

struct Two {
  FakeSink sinks[2];
  Router router{{&sinks[0], &sinks[1]}};

  Result<std::shared_ptr<TokenStream>> submit(std::vector<int32_t> prompt, std::optional<int32_t> rank = {},
                                              const std::string& salt = {}) {
    GenerateRequest request;
    request.id = std::to_string(next++);
    request.prompt = std::move(prompt);
    request.data_parallel_rank = rank;
    request.cache_namespace = salt;
    return router.submit(std::move(request));
  }
  int next = 0;
};

std::vector<int32_t> prompt_of(int32_t length, int32_t first = 0) {
  std::vector<int32_t> prompt(static_cast<size_t>(length));
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

TEST(Router, SpreadsNewPromptsByLoad) {
  Two two;
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(two.submit(prompt_of(40, i * 1000)).ok());
  EXPECT_EQ(two.sinks[0].taken.size(), 4U);
  EXPECT_EQ(two.sinks[1].taken.size(), 4U);
}

TEST(Router, GoesWhereThePromptIsCached) {
  Two two;
  ASSERT_TRUE(two.submit(prompt_of(3000), 1).ok());
  two.sinks[1].load = {};
  two.sinks[1].load.running_requests = 10;  // busier, but worth it
  ASSERT_TRUE(two.submit(prompt_of(3100)).ok());
  EXPECT_EQ(two.sinks[1].taken.size(), 2U);
  two.sinks[1].load.waiting_requests = 100;  // not any more
  ASSERT_TRUE(two.submit(prompt_of(3100)).ok());
  EXPECT_EQ(two.sinks[0].taken.size(), 1U);
}

TEST(Router, NamespacesShareNothing) {
  Two two;
  ASSERT_TRUE(two.submit(prompt_of(3000), 1, "a").ok());
  two.sinks[1].load = {};
  two.sinks[1].load.running_requests = 1;
  ASSERT_TRUE(two.submit(prompt_of(3000), {}, "b").ok());
  EXPECT_EQ(two.sinks[0].taken.size(), 1U);
}

TEST(Router, ObeysTheRankAsked) {
  Two two;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(two.submit(prompt_of(5), 1).ok());
  EXPECT_EQ(two.sinks[1].taken.size(), 3U);
  const auto wrong = two.submit(prompt_of(5), 2);
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(wrong.error().message, "data_parallel_rank 2: there are 2, counted from 0");
}

TEST(Router, TakesAnotherWhenOneIsFull) {
  Two two;
  two.sinks[0].full = true;
  ASSERT_TRUE(two.submit(prompt_of(5)).ok());
  EXPECT_EQ(two.sinks[1].taken.size(), 1U);
  EXPECT_FALSE(two.submit(prompt_of(5), 0).ok()) << "the rank asked for is the only one";
  two.sinks[1].full = true;
  const auto full = two.submit(prompt_of(5));
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kUnavailable);
}

TEST(Router, AddsUpAndTellsAll) {
  Two two;
  two.sinks[0].load.running_requests = 2;
  two.sinks[1].load.running_requests = 3;
  two.sinks[1].load.progress_ns = 7;
  two.sinks[1].load.speculation.histogram = {1, 2};
  EXPECT_EQ(two.router.stats().running_requests, 5);
  EXPECT_EQ(two.router.stats().progress_ns, 7);
  EXPECT_EQ(two.router.stats().speculation.histogram, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(two.router.group_stats()[1].running_requests, 3);
  two.router.cancel("x");
  EXPECT_EQ(two.sinks[0].cancelled, std::vector<std::string>{"x"});
  EXPECT_EQ(two.sinks[1].cancelled, std::vector<std::string>{"x"});
  two.router.finish("y");
  EXPECT_EQ(two.sinks[0].finished, std::vector<std::string>{"y"});
  EXPECT_EQ(two.sinks[1].finished, std::vector<std::string>{"y"});
}

TEST(PrefixMap, ForgetsTheOldest) {
  PrefixMap map;
  map.add("", prompt_of(64), 0);
  EXPECT_EQ(map.seen("", prompt_of(64), 2), (std::vector<int32_t>{64, 0}));
  EXPECT_EQ(map.seen("", prompt_of(63), 2), (std::vector<int32_t>{32, 0})) << "whole blocks only";
  for (size_t blocks = 0; blocks < PrefixMap::kMaxBlocks; blocks += 1024)
    map.add("", prompt_of(1024 * PrefixMap::kBlock, static_cast<int32_t>(blocks) * 64 + 7), 1);
  EXPECT_EQ(map.seen("", prompt_of(64), 2), (std::vector<int32_t>{0, 0}));
}

}  // namespace
}  // namespace fathom::sched
